// The page: a grid or one image, and what the keys and buttons do.

import { draft, explain, setStatus, take, toggleMark, undo, writeBack } from "./actions.js";
import { get } from "./api.js";
import { openBulk } from "./bulk.js";
import { counted, number } from "./dom.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { listen, openHelp } from "./keyboard.js";
import { message } from "./messages.js";
import { openReplace } from "./replace.js";
import { sendAll, sendRemembered } from "./saving.js";
import { Single } from "./single.js";
import { hasVectors, state } from "./state.js";

const POLL = 4000; // milliseconds between looks at what other pages changed
const main = document.getElementById("main");
const grid = new Grid(() => open(single));
const single = new Single(() => open(grid), findSimilar);
let view = null;

function open(next) {
  if (view === next) return;
  view = next;
  main.replaceChildren(view.element);
  document.activeElement?.blur();
  if (view === single) single.show();
  else grid.layout();
  if (view === grid) requestAnimationFrame(() => grid.showCurrent());
}

const filters = new Filters(document.getElementById("filters"), (query) => load(query));

async function load(query) {
  const slow = setTimeout(() => { document.getElementById("counts").textContent = "Searching…"; }, 500);
  try {
    await sendAll();
    await state.load(query, filters.byMeaning);
  } catch (problem) {
    await explain(problem);
  }
  clearTimeout(slow);
  showCounts();
}

function showCounts() {
  const { images = 0, statuses = {}, without_caption: without = 0, who = "", data_set: set = null } = state.about;
  const parts = [
    state.ids.length === images ? counted(images, "image") : `${number(state.ids.length)} of ${counted(images, "image")}`,
    ...["draft", "approved", "rejected"].filter((each) => statuses[each]).map((each) => `${number(statuses[each])} ${each}`),
    without ? `${number(without)} without caption` : null,
    set?.unwritten ? `not all is in the ${set.kind} yet` : null,
    `you are ${who}`,
  ];
  document.getElementById("counts").textContent = parts.filter(Boolean).join(" · ");
  const write = document.getElementById("write");
  write.hidden = set === null;
  write.classList.toggle("main", Boolean(set?.unwritten));
  if (set) write.textContent = `Save to the ${set.kind}`;
  write.title = set?.unwritten ? `What was changed here is not in the ${set?.kind} yet` : `The ${set?.kind} has all of it`;
  document.getElementById("draft-all").hidden = !(state.about.models?.length && without);
}

function findSimilar(row) {
  if (!hasVectors()) {
    message("This library has no vectors: captune library add FOLDER --embed MODEL makes them.");
    return;
  }
  open(grid);
  filters.findSimilar(row);
}

async function judge(status) {
  const { image, row } = state;
  if (!row) return;
  const caption = view === single ? single.caption : row.captions[0];
  if (!caption) {
    message("This image has no caption.");
    return;
  }
  if (await setStatus(image, caption, status)) state.go(state.current + 1);
}

function move(key) {
  const step = view === grid ? grid.stepOf(key) : { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10 }[key];
  const next = state.current + step;
  if (next >= 0 && next < state.ids.length) state.go(next);
  else if (Math.abs(step) > 1 && view !== grid) state.go(next);
}

function inSingle(action) {
  open(single);
  action(); // at once: what is typed next is meant for the field
}

let drafting = false;

async function draftAll() {
  const button = document.getElementById("draft-all");
  if (drafting) {
    drafting = false;
    return;
  }
  drafting = true;
  const [model] = state.about.models;
  const query = new URLSearchParams(filters.query);
  query.set("without_caption", "true");
  try {
    const { images } = await get(`images?${query}`);
    button.textContent = `Stop ${model}`;
    const written = await draft(model, images, () => drafting, (done, all) => message(`${model}: ${number(done)} of ${counted(all, "image")}`));
    message(`${counted(written, "draft")} by ${model}.`);
  } catch (problem) {
    await explain(problem);
  }
  drafting = false;
  button.textContent = "Caption those without";
}

listen({
  ...Object.fromEntries(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown"].map((key) => [key, () => move(key)])),
  Home: () => state.go(0),
  End: () => state.go(state.ids.length - 1),
  Enter: () => open(single),
  Escape: () => open(grid),
  e: () => view.edit(),
  F2: () => view.edit(),
  a: () => judge("approved"),
  r: () => judge("rejected"),
  s: () => state.go(state.current + 1),
  u: () => state.row?.captions.length && setStatus(state.image, view === single ? single.caption : state.row.captions[0], "draft"),
  m: () => state.row && toggleMark(state.row),
  n: () => inSingle(() => single.side.querySelector(".new-caption")?.click()),
  k: () => inSingle(() => single.side.querySelector(".add-keyword")?.focus()),
  g: () => inSingle(() => single.side.querySelector(".again")?.click()),
  h: () => inSingle(() => single.side.querySelector("summary")?.click()),
  f: () => openReplace(filters.selection),
  b: () => openBulk(filters.selection),
  l: () => state.row && findSimilar(state.row),
  "/": () => filters.form.elements.words.focus(),
  "?": openHelp,
  undo: () => undo("undo"),
  redo: () => undo("redo"),
  take: (place) => state.row?.captions[place - 1] && take(state.image, state.row.captions[place - 1]),
});
document.getElementById("undo").addEventListener("click", () => undo("undo"));
document.getElementById("redo").addEventListener("click", () => undo("redo"));
document.getElementById("replace").addEventListener("click", () => openReplace(filters.selection));
document.getElementById("bulk").addEventListener("click", () => openBulk(filters.selection));
document.getElementById("write").addEventListener("click", writeBack);
document.getElementById("help").addEventListener("click", openHelp);
document.getElementById("draft-all").addEventListener("click", draftAll);
state.addEventListener("about", showCounts);
state.addEventListener("problem", (event) => explain(event.detail));

let away = false;

async function poll() {
  if (document.hidden) return;
  try {
    await state.poll();
    if (away) {
      away = false;
      message("The server is there again.");
      await sendAll();
    }
  } catch {
    if (!away) message("The server does not answer. What you write is stored in this browser.");
    away = true;
  }
}

open(grid);
await state.refreshAbout().catch((problem) => explain(problem));
await load(filters.query);
document.getElementById("saved").textContent = "All is saved";
await sendRemembered();
setInterval(poll, POLL);
