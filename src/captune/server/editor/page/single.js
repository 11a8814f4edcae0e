// One image with everything that is known of it: captions side by side, keywords, mark, history.

import { draft, othersOf, removeCaption, setSplit, setStatus, take, toggleMark, writeAgain } from "./actions.js";
import { get } from "./api.js";
import { captionFacts, captionField } from "./caption.js";
import { h, number, replaceChildren } from "./dom.js";
import { keywordList } from "./keywords.js";
import { message } from "./messages.js";
import { hasVectors, splitNames, state } from "./state.js";

export class Single {
  constructor(close, findSimilar) {
    Object.assign(this, { close, findSimilar });
    this.image = h("img", { alt: "" });
    this.place = h("p", { class: "place" });
    this.side = h("div", { class: "side" });
    this.element = h("section", { class: "single", "aria-label": "One image", tabindex: "-1" },
      h("div", { class: "stage" }, this.image,
        h("div", { class: "steps" },
          h("button", { type: "button", onclick: () => state.go(state.current - 1), "aria-label": "Image before" }, "‹"),
          h("button", { type: "button", onclick: close }, "Grid"),
          this.place,
          h("button", { type: "button", onclick: () => state.go(state.current + 1), "aria-label": "Next image" }, "›"))),
      this.side);
    this.shown = null;
    // What is typed in or clicked is not drawn anew meanwhile: a click into a button that goes would be lost.
    this.later = this.pressed = false;
    const drawLater = () => setTimeout(() => this.later && this.element.isConnected && this.refresh());
    this.side.addEventListener("focusout", drawLater);
    this.side.addEventListener("pointerdown", () => { this.pressed = true; });
    for (const name of ["pointerup", "pointercancel"]) {
      document.addEventListener(name, () => setTimeout(() => { this.pressed = false; drawLater(); }));
    }
    state.addEventListener("current", () => this.element.isConnected && this.show());
    state.addEventListener("rows", (event) => this.element.isConnected && event.detail.has(state.image) && this.refresh());
  }

  show() {
    if (!state.ids.length) {
      this.close();
      return;
    }
    const { row } = state;
    this.shown = state.image;
    this.place.textContent = `${number(state.current + 1)} of ${number(state.ids.length)}`;
    const near = state.ids.slice(Math.max(0, state.current - 2), state.current + 6);
    state.want(near.filter((id) => !state.rows.has(id)));
    if (!row) {
      replaceChildren(this.side, h("p", {}, "Loading…"));
      return;
    }
    this.drawImage(row);
    this.drawSide(row);
    for (const id of near.slice(-5)) this.load(state.rows.get(id)); // the next ones are there before they are looked at
    if (document.activeElement === document.body) this.element.focus();
  }

  drawImage(row) {
    this.image.hidden = Boolean(row.problem);
    const source = this.sourceOf(row);
    if (!row.problem && this.image.getAttribute("src") !== source) {
      this.image.src = source;
      this.image.alt = row.path;
    }
  }

  sourceOf(row) {
    return `/v1/library/images/${row.id}/jpeg?side=1600&digest=${row.digest}`;
  }

  load(row) {
    if (row && !row.problem) new Image().src = this.sourceOf(row);
  }

  /** Draw again, but leave a field that is being typed in. */
  refresh() {
    const { row } = state;
    if (!row) return;
    if (this.shown !== state.image || !this.drawn) {
      this.show();
      return;
    }
    const busy = document.activeElement?.closest?.(".side textarea, .side input");
    this.later = this.pressed || Boolean(busy && (busy.matches("textarea") || busy.value !== ""));
    if (this.later) return;
    const focus = document.activeElement?.getAttribute?.("aria-label");
    const inside = this.side.contains(document.activeElement);
    this.drawSide(row);
    if (inside) ([...this.side.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === focus) ?? this.element).focus();
  }

  drawSide(row) {
    this.drawn = true;
    const folded = this.side.querySelector("details")?.open ?? false;
    const size = row.width ? `${number(row.width)} × ${number(row.height)}` : null;
    const facts = [size, row.taken, row.place, row.names].filter(Boolean).join(" · ");
    replaceChildren(this.side,
      h("h2", { class: "path", dir: "auto" }, row.path),
      h("p", { class: "hint" }, facts),
      row.problem ? h("p", { class: "problem" }, row.problem) : null,
      ...row.captions.map((caption, place) => this.drawCaption(row, caption, place)),
      this.drawNew(row),
      this.drawModels(row),
      h("h3", {}, "Keywords"), keywordList(row),
      h("p", { class: "buttons" }, h("button", { type: "button", "aria-pressed": row.mark ? "true" : "false", onclick: () => toggleMark(row) },
        row.mark ? `Marked: ${row.mark}` : "Mark (M)"),
        hasVectors() ? h("button", { type: "button", onclick: () => this.findSimilar(row) }, "Images like this one (L)") : null),
      this.drawSplit(row),
      this.drawHistory(row, folded),
    );
  }

  drawCaption(row, caption, place) {
    const label = `Caption ${place + 1}${caption.written_by === "model" ? ` by ${caption.model || "a model"}` : ""}`;
    const field = captionField(row.id, caption, { label, rows: 2, done: (next) => {
      this.element.focus();
      if (next) state.go(state.current + 1);
    } });
    const takes = caption.status !== "approved" || othersOf(row, caption).length > 0;
    return h("article", { class: `caption ${caption.status}`, "data-caption": caption.id, "aria-label": label },
      captionFacts(caption),
      field,
      h("div", { class: "buttons" },
        h("button", { type: "button", disabled: caption.status === "approved", onclick: () => setStatus(row.id, caption, "approved") }, "Approve"),
        h("button", { type: "button", disabled: caption.status === "rejected", onclick: () => setStatus(row.id, caption, "rejected") }, "Reject"),
        row.captions.length > 1 && takes && place < 9 ? h("button", { type: "button", onclick: () => take(row.id, caption), title: `Key ${place + 1}` }, "Take this one") : null,
        h("button", { type: "button", class: "quiet", "aria-label": `Take caption ${place + 1} away`, onclick: () => removeCaption(row.id, caption.id) }, "✕")),
    );
  }

  drawNew(row) {
    const start = h("button", { type: "button", class: "quiet new-caption" }, row.captions.length ? "Write another caption (N)" : "Write a caption (N)");
    start.addEventListener("click", () => {
      const field = captionField(row.id, null, { label: "New caption", done: () => this.element.focus() });
      start.replaceWith(field);
      field.focus();
    });
    return start;
  }

  drawModels(row) {
    const { models = [] } = state.about;
    if (!models.length) return null;
    const choose = h("select", { "aria-label": "Model" }, ...models.map((model) => h("option", {}, model)));
    const button = h("button", { type: "button", class: "again", onclick: async () => {
      button.disabled = true;
      message(`${choose.value} is captioning…`);
      if (await draft(choose.value, [row.id])) message(`A draft by ${choose.value}.`);
      button.disabled = false;
    } }, "Caption again (G)");
    return h("p", { class: "models" }, button, " with ", choose);
  }

  /** The split of an image of a data set. */
  drawSplit(row) {
    if (row.split === null) return null;
    const choose = h("select", { "aria-label": "Split", onchange: () => setSplit(row.id, choose.value) },
      ...[...new Set([...splitNames(), row.split])].map((name) => h("option", { value: name }, name || "in no split")));
    choose.value = row.split;
    return h("p", {}, h("label", {}, "Split ", choose));
  }

  drawHistory(row, open) {
    const list = h("ol", { class: "history" });
    const details = h("details", {}, h("summary", {}, "History (H)"), list);
    details.addEventListener("toggle", async () => {
      if (!details.open) return;
      const { events } = await get(`images/${row.id}/history`);
      list.replaceChildren(...events.map((event) => h("li", { class: event.state },
        h("p", { class: "facts" }, `${event.at.replace("T", " ").replace("Z", "")} · ${event.who} · ${event.step}${event.state === "done" ? "" : ` (${event.state})`}`),
        event.before === null ? null : h("del", { dir: "auto" }, String(event.before)),
        event.after === null ? null : h("ins", { dir: "auto" }, String(event.after)),
        event.kind !== "caption" || row.captions.some((caption) => caption.text === event.after) || event.after === null ? null
          : h("button", { type: "button", onclick: () => writeAgain(state.row ?? row, event.after) }, "Take this text"))));
    });
    details.open = open;
    return details;
  }

  edit() {
    const field = this.side.querySelector("textarea");
    if (field) field.focus();
    else this.side.querySelector(".new-caption")?.click();
  }

  /** The caption that the focus is in; else the first. */
  get caption() {
    const id = Number(document.activeElement?.closest?.("[data-caption]")?.dataset.caption);
    return state.row?.captions.find((caption) => caption.id === id) ?? state.row?.captions[0];
  }
}
