// Which images are shown, and in which order; the same stands in the address of the page.

import { get } from "./api.js";
import { h, number } from "./dom.js";
import { suggest } from "./keywords.js";
import { hasVectors, state } from "./state.js";

const ORDERS = { doubtful: "doubtful first", path: "by path", taken: "by date taken", added: "last added first" };
const MODES = { words: "by words", meaning: "by meaning", both: "by both" };
const PLACEHOLDERS = { words: "words of captions", meaning: "what images show", both: "words, or what images show" };
const STATUSES = { "": "any status", draft: "drafts", approved: "approved", rejected: "rejected" };

export class Filters {
  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    const change = () => this.apply();
    const select = (name, label, options, className = "") => h("select", { name, class: className, "aria-label": label, onchange: change },
      ...Object.entries(options).map(([value, text]) => h("option", { value }, text)));
    form.append(
      h("input", { name: "words", type: "search", "aria-label": "Words of captions (/)", placeholder: "words of captions" }),
      select("mode", "Search", MODES),
      h("input", { name: "like", type: "hidden" }),
      this.likeButton = h("button", { type: "button", class: "like", hidden: true, onclick: () => { this.like = ""; this.apply(); } }),
      select("order", "Order", ORDERS),
      select("status", "Status", STATUSES),
      select("by", "Written by", { "": "by anyone" }, "rare"),
      select("flag", "Flags", { "": "any flags or none" }, "rare"),
      select("split", "Split", { "": "any split" }, "rare"),
      select("mark", "Mark", { "": "any mark or none" }, "rare"),
      h("input", { name: "tag", class: "rare", "aria-label": "Keyword", placeholder: "keyword", list: "known-keywords", onchange: change }),
      h("details", { class: "more" }, h("summary", {}, "More"), h("div", { class: "panel" },
        h("label", {}, "Folder ", h("input", { name: "under", onchange: change })),
        h("label", {}, "Confidence ", h("input", { name: "confidence", placeholder: "<0.3", pattern: "\\s*(<=|>=|<|>)\\s*\\d*\\.?\\d+\\s*", onchange: change })),
        h("label", {}, "Taken ", h("input", { name: "taken", placeholder: "2024-07", onchange: change })),
        h("label", { class: "check" }, h("input", { name: "without_caption", type: "checkbox", value: "true", onchange: change }), " without caption"),
        h("button", { type: "button", onclick: () => this.clear() }, "All images"))),
    );
    form.elements.tag.addEventListener("input", (event) => suggest(event.target.value));
    let timer = 0;
    form.elements.words.addEventListener("input", () => {
      this.like = "";
      clearTimeout(timer);
      timer = setTimeout(change, this.byMeaning ? 800 : 300);
    });
    form.addEventListener("submit", (event) => { event.preventDefault(); change(); });
    this.fromAddress();
    state.addEventListener("about", () => this.fill());
    addEventListener("hashchange", () => { if (location.hash.slice(1) !== String(this.query)) { this.fromAddress(); this.onChange(this.query); } });
  }

  get query() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) if (value.trim()) query.set(name, value.trim());
    if (query.get("mode") === "words" || !query.has("words") || !hasVectors()) query.delete("mode");
    return query;
  }

  /** Whether images are found by what they show: then they have an order of their own. */
  get byMeaning() {
    return this.query.has("like") || this.query.has("mode");
  }

  /** The same as a body of a request has it; what was found by meaning are the images that are shown. */
  get selection() {
    const { words = "", order: _, mode: __, like: ___, ...rest } = Object.fromEntries(this.query);
    const lists = new Set(["tag", "flag"]);
    const filter = Object.fromEntries(Object.entries(rest).map(([name, value]) =>
      [name, lists.has(name) ? [value] : name === "without_caption" ? true : value]));
    return this.byMeaning ? { filter, images: state.ids } : { words, filter };
  }

  get like() {
    return this.form.elements.like.value;
  }

  set like(image) {
    this.form.elements.like.value = image;
    this.show();
  }

  /** Show images that look like one, the most similar first. */
  findSimilar(row) {
    this.form.elements.words.value = "";
    this.likeName = row.path.split("/").at(-1);
    this.like = String(row.id);
    this.apply();
  }

  /** What can be chosen now. */
  show() {
    const { words, mode, order } = this.form.elements;
    mode.hidden = !hasVectors();
    order.hidden = order.disabled = this.byMeaning; // the most similar comes first
    words.placeholder = PLACEHOLDERS[mode.hidden ? "words" : mode.value];
    words.setAttribute("aria-label", `${mode.value === "words" ? "Words of captions" : "What to search"} (/)`);
    this.likeButton.hidden = !this.like;
    this.likeButton.textContent = `like ${this.likeName ?? ""} ✕`;
    this.likeButton.setAttribute("aria-label", `Like ${this.likeName ?? "an image"}: end this search`);
  }

  apply() {
    if (!this.form.reportValidity()) return;
    this.show();
    const { query } = this;
    history.replaceState(null, "", `#${query}`);
    this.onChange(query);
  }

  clear() {
    const order = this.form.elements.order.value;
    this.form.reset();
    this.like = "";
    this.form.elements.order.value = order;
    this.apply();
  }

  fromAddress() {
    this.like = "";
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = true;
      else {
        if (field instanceof HTMLSelectElement && ![...field.options].some((option) => option.value === value)) field.append(h("option", { value }, value));
        field.value = value;
      }
    }
    if (this.like) this.nameLike();
    this.show();
  }

  async nameLike() {
    const [row] = (await get(`details?image=${Number(this.like)}`)).images;
    this.likeName = row?.path.split("/").at(-1);
    this.show();
  }

  /** Offer the models, flags and marks that there are. */
  fill() {
    const { writers = {}, flags = {}, marks = {}, splits = {} } = state.about;
    const fill = (name, first, counts) => {
      const field = this.form.elements[name];
      const { value } = field;
      const options = first.concat(Object.entries(counts).map(([each, count]) => [each, `${each} (${number(count)})`]));
      if (value && !options.some(([each]) => each === value)) options.push([value, value]);
      field.replaceChildren(...options.map(([each, text]) => h("option", { value: each }, text)));
      field.value = value;
    };
    this.show();
    fill("by", [["", "by anyone"]], writers);
    fill("flag", [["", "any flags or none"], ["any", "with a flag"]], flags);
    fill("split", [["", "any split"]], Object.fromEntries(Object.entries(splits).map(([name, count]) => [name || "none", count])));
    this.form.elements.split.hidden = !Object.keys(splits).length;
    fill("mark", [["", "any mark or none"]], marks);
  }
}
