// Which images are shown, and in which order; the same stands in the address of the page.

import { h, number } from "./dom.js";
import { suggest } from "./keywords.js";
import { state } from "./state.js";

const ORDERS = { doubtful: "doubtful first", path: "by path", taken: "by date taken", added: "last added first" };
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
      select("order", "Order", ORDERS),
      select("status", "Status", STATUSES),
      select("by", "Written by", { "": "by anyone" }, "rare"),
      select("flag", "Flags", { "": "any flags or none" }, "rare"),
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
    form.elements.words.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(change, 300); });
    form.addEventListener("submit", (event) => { event.preventDefault(); change(); });
    this.fromAddress();
    state.addEventListener("about", () => this.fill());
    addEventListener("hashchange", () => { if (location.hash.slice(1) !== String(this.query)) { this.fromAddress(); this.onChange(this.query); } });
  }

  get query() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) if (value.trim()) query.set(name, value.trim());
    return query;
  }

  /** The same as a body of a request has it. */
  get selection() {
    const { words = "", order: _, ...rest } = Object.fromEntries(this.query);
    const lists = new Set(["tag", "flag"]);
    const filter = Object.fromEntries(Object.entries(rest).map(([name, value]) =>
      [name, lists.has(name) ? [value] : name === "without_caption" ? true : value]));
    return { words, filter };
  }

  apply() {
    if (!this.form.reportValidity()) return;
    const { query } = this;
    history.replaceState(null, "", `#${query}`);
    this.onChange(query);
  }

  clear() {
    const order = this.form.elements.order.value;
    this.form.reset();
    this.form.elements.order.value = order;
    this.apply();
  }

  fromAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      const field = this.form.elements[name];
      if (!field) continue;
      if (field.type === "checkbox") field.checked = true;
      else {
        if (field instanceof HTMLSelectElement && ![...field.options].some((option) => option.value === value)) field.append(h("option", { value }, value));
        field.value = value;
      }
    }
  }

  /** Offer the models, flags and marks that there are. */
  fill() {
    const { writers = {}, flags = {}, marks = {} } = state.about;
    const fill = (name, first, counts) => {
      const field = this.form.elements[name];
      const { value } = field;
      const options = first.concat(Object.entries(counts).map(([each, count]) => [each, `${each} (${number(count)})`]));
      if (value && !options.some(([each]) => each === value)) options.push([value, value]);
      field.replaceChildren(...options.map(([each, text]) => h("option", { value: each }, text)));
      field.value = value;
    };
    fill("by", [["", "by anyone"]], writers);
    fill("flag", [["", "any flags or none"], ["any", "with a flag"]], flags);
    fill("mark", [["", "any mark or none"]], marks);
  }
}
