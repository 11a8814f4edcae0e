// Find and replace in the captions of the images that are shown: every change is shown before it is made.

import { explain } from "./actions.js";
import { post } from "./api.js";
import { difference } from "./difference.js";
import { counted, h, number, openDialog, replaceChildren } from "./dom.js";
import { message } from "./messages.js";
import { sendAll } from "./saving.js";
import { state } from "./state.js";

const HOW = { plain: "Find words", regex: "Find a regular expression", prefix: "Put before each caption", suffix: "Put after each caption" };
const PAUSE = 250;

export function openReplace(selection) {
  openDialog("Find and replace", (dialog) => new Replace(dialog, selection).element, "wide replace");
}

class Replace {
  constructor(dialog, selection) {
    Object.assign(this, { dialog, selection, digest: null, without: new Set(), loaded: 0, count: 0, turn: 0 });
    const changed = () => this.previewSoon();
    this.how = h("select", { "aria-label": "What to do", onchange: changed }, ...Object.entries(HOW).map(([value, text]) => h("option", { value }, text)));
    this.find = h("input", { type: "text", oninput: changed, autocomplete: "off", autofocus: true });
    this.replace = h("input", { type: "text", oninput: changed, autocomplete: "off" });
    this.matchCase = h("input", { type: "checkbox", checked: true, onchange: changed });
    this.wholeWords = h("input", { type: "checkbox", onchange: changed });
    this.findLabel = h("label", {}, "Find ", this.find);
    this.replaceLabel = h("label", {}, h("span", {}, "Replace with "), this.replace);
    this.checks = h("div", { class: "checks" }, h("label", {}, this.matchCase, " Match case"), h("label", {}, this.wholeWords, " Whole words"));
    this.summary = h("p", { role: "status" }, "In the captions of the images that are shown.");
    this.list = h("ol", { class: "changes", tabindex: "0", "aria-label": "Changes" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.loadMore() }, "Show more");
    this.apply = h("button", { type: "button", class: "main", disabled: true, onclick: () => this.make() }, "Change");
    this.element = h("div", { class: "replace-form" },
      h("form", { onsubmit: (event) => { event.preventDefault(); this.preview(); } },
        this.how, this.findLabel, this.replaceLabel, this.checks, h("button", { hidden: true }, "Show")),
      this.summary, this.list, this.more, h("div", { class: "buttons" }, this.apply));
  }

  get request() {
    const plain = this.how.value === "prefix" || this.how.value === "suffix";
    return {
      ...this.selection, how: this.how.value, find: plain ? "" : this.find.value, replace: this.replace.value,
      match_case: this.matchCase.checked, whole_words: this.wholeWords.checked,
    };
  }

  get empty() {
    const { how, find, replace } = this.request;
    return how === "prefix" || how === "suffix" ? !replace : !find;
  }

  previewSoon() {
    const whole = this.how.value === "prefix" || this.how.value === "suffix";
    this.findLabel.hidden = this.checks.hidden = whole;
    this.replaceLabel.firstChild.textContent = whole ? "Text " : "Replace with ";
    this.digest = null;
    this.apply.disabled = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.preview(), PAUSE);
  }

  async preview() {
    const turn = ++this.turn;
    this.without.clear();
    this.list.replaceChildren();
    this.loaded = 0;
    if (this.empty) {
      this.summary.textContent = "";
      this.more.hidden = true;
      return;
    }
    await sendAll();
    await this.load(turn);
  }

  async load(turn) {
    let answer;
    try {
      answer = await post("replace", { ...this.request, offset: this.loaded });
    } catch (problem) {
      if (turn !== this.turn) return;
      this.summary.textContent = `${problem.message} ${problem.hint ?? ""}`;
      return;
    }
    if (turn !== this.turn) return; // something else was typed meanwhile
    this.digest = answer.digest;
    this.count = answer.count;
    this.loaded += answer.changes.length;
    this.list.append(...answer.changes.map((change) => this.line(change)));
    this.more.hidden = this.loaded >= this.count;
    this.more.textContent = `Show more (${number(this.loaded)} of ${number(this.count)})`;
    this.summary.textContent = `${counted(this.count, "caption")} of ${number(answer.captions)} would change.`;
    this.showCount();
  }

  loadMore() {
    return this.load(this.turn);
  }

  showCount() {
    const left = this.count - this.without.size;
    this.apply.textContent = left ? `Change ${counted(left, "caption")}` : "Change";
    this.apply.disabled = !left;
  }

  line(change) {
    const box = h("input", { type: "checkbox", checked: true, "aria-label": `Change the caption of ${change.path}`, onchange: () => {
      if (box.checked) this.without.delete(change.caption);
      else this.without.add(change.caption);
      this.showCount();
    } });
    return h("li", {}, box, h("div", {}, h("p", { class: "path" }, change.path), difference(change.before, change.after)));
  }

  async make() {
    this.apply.disabled = true;
    try {
      const answer = await post("replace", { ...this.request, digest: this.digest, without: [...this.without] });
      state.changed(answer);
      message(`${counted(answer.changed.length, "image")} changed. Undo: Ctrl+Z`);
      this.dialog.close();
    } catch (problem) {
      await explain(problem);
      await this.preview();
      replaceChildren(this.summary, `${problem.message} This is what would change now.`);
    }
  }
}
