// The keys of the page, and the list of them.

import { h, openDialog, takesText } from "./dom.js";

const SETTING = "captune-single-keys";

export const HELP = [
  ["← → ↑ ↓", "the image before, the next one, above, below"],
  ["Page up, Page down, Home, End", "further"],
  ["Enter", "one image; Escape: the grid"],
  ["E", "edit the caption; Ctrl+Enter: save and go on, Escape: save and leave the field"],
  ["A", "approve the caption and go on"],
  ["R", "reject it and go on"],
  ["S", "skip: go on"],
  ["U", "make it a draft again"],
  ["M", "mark the image, or take its mark away"],
  ["1 … 9", "take this one of several captions, reject those of other models"],
  ["N", "write another caption"],
  ["K", "add keywords"],
  ["G", "caption again by the model"],
  ["H", "history of the image"],
  ["F", "find and replace"],
  ["B", "change all images that are shown"],
  ["L", "images like this one, where the library has vectors"],
  ["/", "search"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["?", "this list"],
];

/** Call the action of a key; `actions` are functions by key, in small letters. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const command = event.ctrlKey || event.metaKey;
    const typing = takesText(event.target);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (command && !event.altKey && (key === "z" || key === "y")) {
      if (typing) return; // the field has its own
      event.preventDefault();
      actions[key === "y" || event.shiftKey ? "redo" : "undo"]();
      return;
    }
    if (typing || command || event.altKey) return;
    if (event.target.closest?.("button, summary, a") && (key === "Enter" || key === " ")) return;
    const action = /^[1-9]$/.test(key) ? () => actions.take(Number(key)) : actions[key];
    if (!action || (key.length === 1 && key !== "?" && !singleKeys())) return;
    event.preventDefault();
    action();
  });
}

const singleKeys = () => localStorage[SETTING] !== "off";

export function openHelp() {
  openDialog("Keys", () => h("div", {},
    h("dl", { class: "keys" }, ...HELP.flatMap(([keys, words]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, words)])),
    h("label", { class: "check" }, h("input", {
      type: "checkbox", checked: singleKeys(), onchange: (event) => { localStorage[SETTING] = event.target.checked ? "on" : "off"; },
    }), " Keys without Ctrl (switch them off for speech input)"),
  ));
}
