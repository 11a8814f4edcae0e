// All images of the list as a grid, of which those in sight (and the current one) are elements.

import { captionFacts, captionField } from "./caption.js";
import { h, replaceChildren } from "./dom.js";
import { explainImage } from "./problem.js";
import { mainCaption, state } from "./state.js";

const WIDTH = 230; // least width of a card in pixels; on a phone two stand side by side
const BELOW = 148; // caption, keywords, status
const TALLEST = 8_000_000; // pixels: browsers draw nothing below some thirty million, so that longer lists are scaled
const SETTLE = 60; // milliseconds until images of rows that stay are loaded

export class Grid {
  constructor(openImage) {
    this.openImage = openImage;
    this.lines = new Map(); // drawn lines of cards, by their number
    this.space = h("div", { class: "space", role: "presentation" });
    this.element = h("div", {
      class: "grid", role: "grid", "aria-label": "Images", tabindex: "-1", onscroll: () => this.drawSoon(),
    }, this.space);
    this.editing = null;
    new ResizeObserver(() => this.layout()).observe(this.element);
    state.addEventListener("list", () => this.reset());
    state.addEventListener("rows", (event) => this.refresh(event.detail));
    state.addEventListener("current", () => this.showCurrent());
    this.element.addEventListener("click", (event) => this.onClick(event));
    this.element.addEventListener("dblclick", (event) => {
      if (event.target.closest(".picture")) this.openImage();
    });
  }

  layout() {
    const width = this.element.clientWidth - 16;
    if (width <= 0) return;
    const columns = Math.max(width < 520 ? 2 : 1, Math.floor(width / WIDTH));
    const height = Math.round((width / columns) * 0.7) + BELOW;
    if (columns !== this.columns || height !== this.height) {
      Object.assign(this, { columns, height });
      this.reset();
    } else this.draw(); // a keyboard on the screen, for one: what is typed in stays
    if (!this.editing) this.showCurrent(false);
  }

  reset() {
    if (!this.columns) return;
    this.count = Math.ceil(state.ids.length / this.columns);
    this.element.setAttribute("aria-rowcount", this.count);
    this.element.setAttribute("aria-colcount", this.columns);
    this.space.style.height = `${Math.min(TALLEST, this.count * this.height)}px`;
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
    this.editing = null;
    if (!state.ids.length) {
      replaceChildren(this.space, h("div", { role: "row" }, h("div", { role: "gridcell", class: "empty" }, "No image is like that.")));
    } else this.space.replaceChildren();
    this.draw();
  }

  /** Pixels of the whole list, and where its top is now; a list that is too tall is scrolled in larger steps. */
  get top() {
    const whole = this.count * this.height;
    const view = this.element.clientHeight;
    const drawn = Math.min(TALLEST, whole);
    return whole <= TALLEST ? this.element.scrollTop : (this.element.scrollTop / (drawn - view)) * (whole - view);
  }

  scrollToTop(top) {
    const whole = this.count * this.height;
    const view = this.element.clientHeight;
    this.element.scrollTop = whole <= TALLEST ? top : (top / (whole - view)) * (TALLEST - view);
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const { top } = this;
    const view = this.element.clientHeight;
    const first = Math.max(0, Math.floor(top / this.height) - 1);
    const last = Math.min(this.count - 1, Math.ceil((top + view) / this.height));
    const current = Math.floor(state.current / this.columns);
    const shift = this.element.scrollTop - top;
    for (const [number, line] of this.lines) {
      if ((number < first || number > last) && number !== current) {
        for (const image of line.querySelectorAll("img")) image.removeAttribute("src"); // ends its request
        line.remove();
        this.lines.delete(number);
      }
    }
    for (const number of new Set([...Array(Math.max(0, last - first + 1)).keys()].map((each) => first + each).concat(current))) {
      if (number >= this.count || number < 0) continue;
      if (!this.lines.has(number)) this.add(number);
      this.lines.get(number).style.transform = `translateY(${number * this.height + shift}px)`;
    }
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.loadShown(), SETTLE);
  }

  add(number) {
    const start = number * this.columns;
    const cards = state.ids.slice(start, start + this.columns).map((id, place) => this.card(id, start + place));
    const line = h("div", { class: "line", role: "row", "aria-rowindex": number + 1 }, ...cards);
    line.style.height = `${this.height}px`;
    line.style.gridTemplateColumns = `repeat(${this.columns}, minmax(0, 1fr))`;
    this.lines.set(number, line);
    const after = [...this.lines.keys()].filter((each) => each > number).sort((a, b) => a - b)[0];
    this.space.insertBefore(line, after === undefined ? null : this.lines.get(after));
  }

  /** Load what is in sight now: rows that were scrolled past never are. */
  loadShown() {
    const wanted = [];
    for (const card of this.space.querySelectorAll(".card")) {
      const id = Number(card.dataset.image);
      if (!state.rows.has(id)) wanted.push(id);
      else this.loadImage(card, state.rows.get(id));
    }
    state.want(wanted);
  }

  loadImage(card, row) {
    const image = card.querySelector("img");
    if (image && !image.getAttribute("src") && !row.problem) image.src = `/v1/library/images/${row.id}/jpeg?side=320&digest=${row.digest}`;
  }

  card(id, place) {
    const card = h("div", {
      class: "card", role: "gridcell", tabindex: place === state.current ? "0" : "-1",
      "data-image": id, "data-place": place, "aria-colindex": (place % this.columns) + 1,
      "aria-selected": place === state.current ? "true" : "false",
    });
    this.fill(card, state.rows.get(id));
    return card;
  }

  fill(card, row) {
    if (!row) {
      card.replaceChildren(h("div", { class: "picture" }));
      return;
    }
    const caption = mainCaption(row);
    const name = row.path.split("/").at(-1);
    replaceChildren(card,
      h("div", { class: "picture", title: row.path },
        row.problem ? h("p", { class: "problem" }, row.problem) : h("img", { alt: name, decoding: "async", draggable: "false", onerror: explainImage })),
      h("div", { class: "text", dir: "auto" }, caption
        ? h("span", { class: "words" }, caption.text) : h("span", { class: "none" }, row.problem ? "" : "No caption")),
      caption ? captionFacts(caption) : null,
      h("p", { class: "more" },
        row.split === null ? null : h("span", { class: "split" }, row.split || "no split"),
        row.mark ? h("span", { class: "mark" }, row.mark) : null,
        row.captions.length > 1 ? h("span", { class: "several" }, `${row.captions.length} captions`) : null,
        row.keywords.length ? h("span", { class: "keywords" }, row.keywords.join(", ")) : null),
    );
  }

  cardOf(id) {
    return this.space.querySelector(`[data-image="${id}"]`);
  }

  refresh(ids) {
    for (const id of ids) {
      const card = this.cardOf(id);
      if (!card || card.contains(this.editing)) continue;
      const image = card.querySelector("img");
      const row = state.rows.get(id);
      this.fill(card, row);
      if (image?.getAttribute("src")) card.querySelector("img")?.replaceWith(image); // no flicker
    }
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.loadShown(), SETTLE);
  }

  showCurrent(focus = true) {
    if (!this.columns || !this.element.isConnected || !state.ids.length) return;
    for (const card of this.space.querySelectorAll('.card[aria-selected="true"]')) {
      card.setAttribute("aria-selected", "false");
      card.tabIndex = -1;
    }
    const top = Math.floor(state.current / this.columns) * this.height;
    const view = this.element.clientHeight;
    if (top < this.top) this.scrollToTop(top);
    else if (top + this.height > this.top + view) this.scrollToTop(top + this.height - view);
    this.draw();
    const card = this.cardOf(state.image);
    if (!card) return;
    card.setAttribute("aria-selected", "true");
    card.tabIndex = 0;
    const busy = document.activeElement;
    if (focus && (busy === document.body || this.element.contains(busy) || busy === null)) card.focus({ preventScroll: true });
  }

  onClick(event) {
    const card = event.target.closest(".card");
    if (!card || event.target.closest("textarea")) return;
    state.go(Number(card.dataset.place));
    if (event.target.closest(".text")) this.edit();
  }

  /** Edit the caption of the current image where it stands. */
  edit() {
    const card = this.cardOf(state.image);
    const { row } = state;
    const text = card?.querySelector(".text");
    if (!text || !row || (row.problem && !mainCaption(row))) return;
    const field = captionField(row.id, mainCaption(row) ?? null, {
      label: `Caption of ${row.path}`,
      done: (next) => {
        field.blur();
        if (next) state.go(state.current + 1);
        else this.showCurrent();
        if (next) this.edit();
      },
    });
    field.addEventListener("blur", () => {
      this.editing = null;
      // While it is sent, what was typed is shown.
      text.replaceChildren(h("span", { class: "words" }, field.value));
      const again = () => this.refresh([row.id]);
      field.typing.end().then(again, again);
    });
    this.editing = field;
    text.replaceChildren(field);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  /** How many images an arrow key goes on. */
  stepOf(key) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.height)) * this.columns;
    return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page }[key];
  }
}
