// The same change of all images that are shown: counted before it is made, one step.

import { DEFAULT_MARK, explain } from "./actions.js";
import { post } from "./api.js";
import { counted, h, openDialog } from "./dom.js";
import { suggest } from "./keywords.js";
import { message } from "./messages.js";
import { sendAll } from "./saving.js";
import { splitNames, state } from "./state.js";

const PAUSE = 250;
const KEYWORDS = "Keywords";
const SPLIT = "Split (none: in no split)";
const LISTS = { [KEYWORDS]: "known-keywords", [SPLIT]: "known-splits" };
const status = (value) => () => ({ kind: "status", status: value });

// By name: its words, what is done to how many, the change that it is, and the label of its text.
const CHANGES = {
  approved: { text: "Approve captions", done: (what) => `Approve ${what}`, change: status("approved") },
  rejected: { text: "Reject captions", done: (what) => `Reject ${what}`, change: status("rejected") },
  draft: { text: "Make captions drafts again", done: (what) => `Make ${what} drafts`, change: status("draft") },
  add: { text: "Add keywords", done: (what) => `Add to ${what}`, change: (words) => ({ kind: "keywords", add: words }), label: KEYWORDS },
  remove: { text: "Take keywords away", done: (what) => `Take from ${what}`, change: (words) => ({ kind: "keywords", remove: words }), label: KEYWORDS },
  mark: { text: "Mark", done: (what) => `Mark ${what}`, change: ([word]) => ({ kind: "mark", mark: word }), label: "Mark" },
  split: { text: "Put into a split", done: (what) => `Put ${what} into it`, change: ([word]) => ({ kind: "split", split: word === "none" ? "" : word }), label: SPLIT },
  unmark: { text: "Take marks away", done: (what) => `Take the mark from ${what}`, change: () => ({ kind: "mark", mark: null }) },
};

export function openBulk(selection) {
  openDialog("Change all that are shown", (dialog) => new Bulk(dialog, selection).element);
}

class Bulk {
  constructor(dialog, selection) {
    Object.assign(this, { dialog, selection, digest: null, turn: 0, timer: 0 });
    this.kind = h("select", { "aria-label": "What to do", autofocus: true, onchange: () => this.choose() },
      ...Object.entries(CHANGES).filter(([name]) => name !== "split" || state.about.data_set?.kind === "data set").map(([value, { text }]) => h("option", { value }, text)));
    this.words = h("input", { type: "text", autocomplete: "off", oninput: () => this.countSoon() });
    this.label = h("label", { hidden: true }, h("span", {}, ""), " ", this.words);
    this.summary = h("p", { role: "status" });
    this.apply = h("button", { class: "main", disabled: true }, "Change");
    this.element = h("form", { class: "bulk", onsubmit: (event) => { event.preventDefault(); this.make(); } },
      h("p", {}, this.kind), this.label, this.summary, h("div", { class: "buttons" }, this.apply));
    this.count();
  }

  get chosen() {
    return CHANGES[this.kind.value];
  }

  get request() {
    const { label, change } = this.chosen;
    const words = label === KEYWORDS ? this.words.value.split(",") : [this.words.value];
    const given = words.map((word) => word.trim()).filter(Boolean);
    return label && !given.length ? null : { ...this.selection, change: change(given) };
  }

  choose() {
    const { label } = this.chosen;
    this.label.hidden = !label;
    this.label.firstChild.textContent = label ?? "";
    this.words.value = this.kind.value === "mark" ? DEFAULT_MARK : "";
    if (LISTS[label]) this.words.setAttribute("list", LISTS[label]);
    else this.words.removeAttribute("list");
    if (label === KEYWORDS) suggest("");
    if (label === SPLIT) document.getElementById("known-splits").replaceChildren(...splitNames().map((value) => h("option", { value: value || "none" })));
    this.count();
  }

  countSoon() {
    if (this.chosen.label === KEYWORDS) suggest(this.words.value);
    this.disable("");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.count(), PAUSE);
  }

  disable(text) {
    this.turn += 1;
    this.digest = null;
    this.apply.disabled = true;
    this.apply.textContent = "Change";
    this.summary.textContent = text;
  }

  /** Count what would change; `before` comes first in what is shown. */
  async count(before = "") {
    clearTimeout(this.timer);
    const { request } = this;
    this.disable(request ? `${before}Counting…` : this.chosen.label === KEYWORDS ? "Write one, or several with commas." : "Write its name.");
    if (!request) return;
    const { turn } = this;
    try {
      await sendAll();
      const { count, images, digest } = await post("bulk", request);
      if (turn !== this.turn) return; // something else was chosen meanwhile
      this.digest = digest;
      const isStatus = request.change.kind === "status";
      const what = counted(count, isStatus ? "caption" : "image");
      this.apply.textContent = count ? this.chosen.done(what) : "Change";
      this.apply.disabled = !count;
      this.summary.textContent = before + (count ? `${what}${isStatus ? ` of ${counted(images, "image")}` : ""} would change.` : "Nothing would change.")
        + (isStatus && count > images ? " Some images have several captions; filter by who wrote them to choose among these." : "");
    } catch (problem) {
      if (turn === this.turn) this.summary.textContent = `${problem.message} ${problem.hint ?? ""}`;
    }
  }

  async make() {
    const { request, digest } = this;
    if (!digest || this.apply.disabled) return;
    this.disable("Changing…");
    try {
      const answer = await post("bulk", { ...request, digest });
      state.changed(answer);
      message(`${counted(answer.changed.length, "image")} changed. Undo: Ctrl+Z`);
      this.dialog.close();
    } catch (problem) {
      await explain(problem);
      await this.count(`${problem.message} `);
    }
  }
}
