"use strict";

(function theme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
  button.hidden = false;
  name();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
    try {
      localStorage.setItem("captune-theme", root.dataset.theme);
    } catch (error) {
      console.info("The choice of theme is not kept:", error.message);
    }
  });
})();

// A region that does not scroll needs no stop of the Tab key.
(function scrolling() {
  const look = () => {
    for (const region of document.querySelectorAll(".scroll")) {
      if (region.scrollWidth > region.clientWidth) region.setAttribute("tabindex", "0");
      else region.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", look);
  new ResizeObserver(look).observe(document.body);
})();

(function pictures() {
  const holder = document.getElementById("explorer");
  if (!holder) return;
  const PAGE = 50;
  const data = JSON.parse(document.getElementById("pictures-data").textContent);
  const form = document.getElementById("filters");
  const table = document.getElementById("pictures-table");
  const [head, body] = [table.tHead.rows[0], table.tBodies[0]];
  const several = data.models.length > 1;
  const state = { sort: data.keys.length ? "0" : "id", descending: false, page: 0, found: [] };
  const words = data.pictures.map((p) => [p.i, p.f, ...p.r, ...p.c].join("\n").toLowerCase());

  // Everything from outside becomes text, never markup.
  function make(tag, attributes, ...content) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...content);
    return element;
  }

  const key = () => data.keys.indexOf(form.elements.key.value);
  const other = () => Number(form.elements.other.value || 1);
  const score = (picture, model) => picture.s[model][key()] ?? null;
  function difference(picture) {
    const [mine, theirs] = [score(picture, 0), score(picture, other())];
    return mine === null || theirs === null ? null : mine - theirs;
  }
  const scaled = (value, at) => (data.plain[at] ? value : 100 * value);
  function shown(value, at) {
    if (value === null || value === undefined) return "–";
    return scaled(value, at).toFixed(data.plain[at] ? 2 : 1).replace(/^-(?=0[.]?0*$)/, "").replace("-", "−");
  }
  const signed = (value, at) => (value > 0 && /[1-9]/.test(shown(value, at)) ? "+" : "") + shown(value, at);

  function columns() {
    const name = data.labels[key()] ?? "";
    const list = [{ id: "id", name: "Picture" }];
    data.models.forEach((model, place) => list.push({ id: String(place), name: several ? model : `Caption, ${name}`, place }));
    if (several) list.push({ id: "difference", name: data.models.length > 2 ? `Difference to ${data.models[other()]}` : "Difference" });
    return list;
  }

  function drawHead() {
    head.replaceChildren(
      ...columns().map((column) => {
        const sorted = state.sort === column.id ? (state.descending ? "descending" : "ascending") : "none";
        const button = make("button", { type: "button", "data-sort": column.id });
        if (several && column.place !== undefined) button.append(make("span", { class: `dot m${column.place % 8}` }));
        button.append(make("bdi", {}, column.name));
        return make("th", { scope: "col", role: "columnheader", "aria-sort": sorted }, button);
      }),
    );
  }

  function value(picture) {
    if (state.sort === "difference") return difference(picture);
    return score(picture, Number(state.sort));
  }

  function compare(a, b) {
    if (state.sort === "id") return state.descending ? b - a : a - b;
    const [one, two] = [value(data.pictures[a]), value(data.pictures[b])];
    // What has no score stands last in either direction.
    if (one === null || two === null) return (one === null) - (two === null) || a - b;
    return (state.descending ? two - one : one - two) || a - b;
  }

  function find() {
    const text = form.elements.text.value.trim().toLowerCase();
    const [least, most] = [form.elements.least, form.elements.most].map((input) => (input.value === "" ? null : Number(input.value)));
    const model = Number(form.elements.model.value || 0);
    const kept = [];
    data.pictures.forEach((picture, at) => {
      if (text && !words[at].includes(text)) return;
      if (least !== null || most !== null) {
        const found = score(picture, model);
        if (found === null) return;
        // As it is shown, so that "at least 41.3" keeps a row that says 41.3.
        const rounded = Number(scaled(found, key()).toFixed(data.plain[key()] ? 2 : 1));
        if ((least !== null && rounded < least) || (most !== null && rounded > most)) return;
      }
      kept.push(at);
    });
    state.found = kept.sort(compare);
  }

  const said = (text, kind) =>
    text === "" ? make("em", { class: "empty" }, "empty") : make("span", { class: kind, dir: "auto" }, text);

  function image(picture) {
    const alt = picture.r.find(Boolean) ?? picture.c.find(Boolean) ?? `picture ${picture.i}`;
    if (picture.t) return make("img", { class: "thumb", alt, src: picture.t, decoding: "async" });
    if (!data.boxes) return "";
    return make("span", { class: "thumb none", role: "img", "aria-label": `No picture: ${alt}` }, "no picture");
  }

  function allScores(picture) {
    const head = make("tr", {}, make("th", { scope: "col" }, "Score"), ...data.models.map((m) => make("th", { scope: "col" }, make("bdi", {}, m))));
    const rows = data.keys.map((_, at) =>
      make("tr", {}, make("th", { scope: "row" }, data.labels[at]), ...data.models.map((_, m) => make("td", {}, shown(picture.s[m][at], at)))),
    );
    return make("div", { class: "scroll", role: "group", "aria-label": "All scores", tabindex: "0" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  function row(at) {
    const picture = data.pictures[at];
    const cell = (attributes, ...content) => make("td", { role: "cell", ...attributes }, ...content);
    const references = make("ul", {}, ...picture.r.map((text) => make("li", {}, said(text, "reference"))));
    const more = make("details", {}, make("summary", {}, `${picture.r.length} references, all scores`));
    // Filled when it is opened: most never are.
    more.addEventListener("toggle", () => { if (more.children.length === 1) more.append(references, allScores(picture)); });
    const cells = [cell({}, image(picture), make("span", { class: "name" }, picture.i))];
    picture.c.forEach((caption, model) => {
      const written = caption === null ? make("em", { class: "empty" }, "no caption") : said(caption, "caption");
      const inside = [make("span", { class: "value" }, shown(score(picture, model), key())), written];
      cells.push(cell({ "data-name": data.models[model], "data-score": score(picture, model) ?? "" }, ...inside, ...(model ? [] : [more])));
    });
    if (several) {
      const apart = difference(picture);
      cells.push(cell({ class: "number", "data-name": "Difference", "data-score": apart ?? "" }, apart === null ? "–" : signed(apart, key())));
    }
    return make("tr", { role: "row", "data-id": picture.i }, ...cells);
  }

  function draw() {
    drawHead();
    const pages = Math.max(1, Math.ceil(state.found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const start = state.page * PAGE;
    const rows = state.found.slice(start, start + PAGE);
    body.replaceChildren(...rows.map(row));
    const count = (n) => n.toLocaleString("en");
    document.getElementById("found").textContent = rows.length
      ? `${count(state.found.length)} of ${count(data.pictures.length)} images; ${count(start + 1)} to ${count(start + rows.length)} shown.`
      : "No picture passes the filters.";
    document.getElementById("page").textContent = `Page ${count(state.page + 1)} of ${count(pages)}`;
    for (const button of holder.querySelectorAll("[data-step]")) {
      // Not `disabled`: that would throw the focus away at the last page.
      button.setAttribute("aria-disabled", button.dataset.step === "1" ? state.page >= pages - 1 : state.page === 0);
    }
  }

  function update() {
    state.page = 0;
    find();
    draw();
  }

  head.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    state.descending = state.sort === button.dataset.sort && !state.descending;
    state.sort = button.dataset.sort;
    update();
    head.querySelector(`[data-sort="${state.sort}"]`).focus();
  });
  holder.addEventListener("click", (event) => {
    const step = Number(event.target.dataset?.step ?? 0);
    if (!step || event.target.getAttribute("aria-disabled") === "true") return;
    state.page += step;
    draw();
    table.scrollIntoView({ block: "start" });
  });
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  });
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  holder.hidden = false;
  update();
})();
