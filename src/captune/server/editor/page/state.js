// The list of images, what is known of those that are shown, and which one is the current one.

import { get } from "./api.js";

const MOST_ROWS = 4000; // rows in memory; those that were not shown for longest are dropped
const AT_ONCE = 100;

class State extends EventTarget {
  ids = [];
  places = new Map(); // of an image in the list
  rows = new Map();
  current = 0;
  serial = 0;
  query = new URLSearchParams();
  about = {};
  #turn = 0;
  #wanted = new Set();
  #loading = false;

  /** Load the list that a query means; the current image stays the current one, unless the first is to be (`fromTop`). */
  async load(query, fromTop = false) {
    const turn = ++this.#turn;
    const answer = await get(`images?${query}`);
    if (turn !== this.#turn) return; // something else is looked for by now
    const former = this.ids[this.current];
    this.query = query;
    this.ids = answer.images;
    this.serial = Math.max(this.serial, answer.serial);
    this.places = new Map(this.ids.map((id, place) => [id, place]));
    this.current = fromTop ? 0 : this.places.get(former) ?? 0;
    this.rows.clear();
    this.emit("list");
    this.emit("current");
  }

  async refreshAbout() {
    this.about = await get("about");
    this.emit("about");
  }

  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  get image() {
    return this.ids[this.current];
  }

  get row() {
    return this.rows.get(this.image);
  }

  /** Make an image the current one, by its place in the list. */
  go(place) {
    const last = this.ids.length - 1;
    this.current = Math.max(0, Math.min(last, place));
    this.emit("current");
  }

  /** Have the rows of images loaded, a hundred at a time; "rows" is emitted for those that came. */
  want(ids) {
    for (const id of ids) if (!this.rows.has(id)) this.#wanted.add(id);
    if (!this.#loading && this.#wanted.size) this.#loadWanted();
  }

  async #loadWanted() {
    this.#loading = true;
    try {
      while (this.#wanted.size) {
        const some = [...this.#wanted].slice(-AT_ONCE); // the latest: what was scrolled past can wait
        for (const id of some) this.#wanted.delete(id);
        if (this.#wanted.size > 10 * AT_ONCE) this.#wanted.clear();
        const answer = await get(`details?${some.map((id) => `image=${id}`).join("&")}`);
        this.put(answer.images);
      }
    } catch (problem) {
      this.#wanted.clear();
      this.emit("problem", problem);
    } finally {
      this.#loading = false;
    }
  }

  /** Take in rows as the server has them now. */
  put(images) {
    for (const row of images) {
      this.rows.delete(row.id);
      this.rows.set(row.id, row);
    }
    for (const id of this.rows.keys()) {
      if (this.rows.size <= MOST_ROWS) break;
      this.rows.delete(id);
    }
    this.emit("rows", new Set(images.map((row) => row.id)));
  }

  /** Take in the answer to a change: the rows that it has, and load others again that it changed. */
  changed(answer) {
    const known = new Set(answer.images.map((row) => row.id));
    for (const id of answer.changed) if (!known.has(id)) this.rows.delete(id);
    this.put(answer.images);
    if (answer.changed.length > known.size) this.emit("rows", new Set(answer.changed));
    this.aboutSoon();
  }

  #soon = 0;
  aboutSoon() {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.refreshAbout().catch((problem) => this.emit("problem", problem)), 1500);
  }

  async #loadAgain(ids) {
    this.put((await get(`details?${ids.map((id) => `image=${id}`).join("&")}`)).images);
  }

  /** Load what other pages and programs changed meanwhile. What this page changed comes once more. */
  async poll() {
    const answer = await get(`changes?since=${this.serial}`);
    this.serial = answer.serial;
    const changed = answer.images?.filter((id) => this.rows.has(id));
    if (changed && !changed.length) return;
    if (changed && changed.length <= AT_ONCE) await this.#loadAgain(changed);
    else { // those in sight are loaded again with the current one, the others when they are shown
      for (const id of changed ?? [...this.rows.keys()]) if (id !== this.image) this.rows.delete(id);
      if (this.image) await this.#loadAgain([this.image]);
    }
    this.aboutSoon();
  }
}

export const state = new State();

/** The caption of a row that comes first: approved, else a draft, else rejected; undefined: it has none. */
export const mainCaption = (row) => row?.captions[0];

/** The splits that an image of a data set can be put into; empty: none. */
export const splitNames = () => [...new Set(["train", "val", "test", ...Object.keys(state.about.splits ?? {}), ""])];

/** Whether images can be found by what they show. */
export const hasVectors = () => Object.values(state.about.vectors ?? {}).some(Boolean);
