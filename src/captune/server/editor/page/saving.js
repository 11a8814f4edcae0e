// Captions that are typed: kept in this browser at once, saved after a pause, and what the server says of it.

import { Problem, post } from "./api.js";
import { chooseText } from "./conflict.js";
import { message } from "./messages.js";
import { state } from "./state.js";

const PAUSE = 900; // milliseconds without a key until a text is sent
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 15000;
const PREFIX = "captune-text:";

const followers = new Map(); // captions that were corrected here, and those in their place
const open = new Map(); // texts that are not saved, by image and the caption that they correct

/** A text that is being typed, of an image, in the place of the caption `of` (null: a new one). */
export class Typing {
  constructor(image, of, text) {
    Object.assign(this, { image, of, before: text, text, step: null, timer: 0, sending: null, wait: FIRST_WAIT });
  }

  get key() {
    return `${PREFIX}${state.about.folder}:${this.image}:${this.of ?? "new"}`;
  }

  get unsaved() {
    return this.text !== this.before;
  }

  input(text) {
    this.text = text;
    clearTimeout(this.timer);
    if (!this.unsaved) {
      this.#forget();
      return;
    }
    open.set(this.key, this);
    remember(this.key, { image: this.image, of: this.of, text, at: Date.now() });
    show();
    this.timer = setTimeout(() => this.send(), PAUSE);
  }

  /** Send what is not saved now; whoever waits for it is told when it is. */
  async send() {
    clearTimeout(this.timer);
    if (this.sending) await this.sending;
    if (!this.unsaved || !this.text.trim()) return;
    this.sending = this.#post();
    await this.sending;
    this.sending = null;
  }

  /** What was typed is one step; what comes next is another one. */
  async end() {
    if (this.unsaved && !this.text.trim()) {
      if (this.of !== null) message("A caption without words is not saved. ✕ takes a caption away.");
      this.text = this.before;
      this.#forget();
      state.emit("resolved", this);
    }
    await this.send();
    this.step = null;
  }

  async #post() {
    const { text, of, image, key } = this;
    show("saving");
    try {
      const answer = await post("steps", {
        name: of === null ? "write a caption" : "correct a caption",
        changes: [{ kind: "caption", image, text, of }],
        rewrites: this.step,
      });
      open.delete(key);
      forget(key);
      this.wait = FIRST_WAIT;
      this.#accept(text, answer.captions[0] ?? this.of);
      this.step = answer.step?.id ?? null;
      if (this.unsaved) this.input(this.text); // typed meanwhile
      state.changed(answer);
      show();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      await this.#failed(problem, text);
    }
  }

  /** The server has this text, as a caption of this number. */
  #accept(text, caption) {
    if (this.of !== null && this.of !== caption) followers.set(this.of, caption);
    this.of = caption;
    this.before = text;
  }

  async #failed(problem, text) {
    if (problem.passing) {
      show("waiting");
      this.timer = setTimeout(() => this.send(), this.wait);
      this.wait = Math.min(LONGEST_WAIT, 2 * this.wait);
      return;
    }
    if (problem.status !== 409) {
      message(`${problem.message} ${problem.hint ?? ""}`);
      show();
      return;
    }
    const there = problem.conflict ?? {};
    if (there.text === text) { // it was saved, and the answer got lost
      this.#forget();
      this.#accept(text, there.caption);
      show();
      return;
    }
    const chosen = await chooseText(this.image, text, there.text ?? null);
    this.#forget();
    this.of = there.caption ?? null;
    this.before = there.text ?? "";
    this.step = null;
    this.text = chosen ?? this.before;
    if (this.unsaved) await this.#post();
    else await state.poll();
    state.emit("resolved", this);
    show();
  }

  #forget() {
    open.delete(this.key);
    forget(this.key);
    show();
  }
}

/** The caption that stands now where another one stood, as far as this page corrected it. */
export function latest(caption) {
  let found = caption;
  while (followers.has(found)) found = followers.get(found);
  return found;
}

/** Send all that is not saved. */
export async function sendAll() {
  for (const typing of [...open.values()]) await typing.end();
}

/** Send the texts that a former visit left in this browser. */
export async function sendRemembered() {
  const prefix = `${PREFIX}${state.about.folder}:`;
  const texts = Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => JSON.parse(localStorage[key]));
  for (const { image, of, text } of texts) {
    const typing = new Typing(image, of, "");
    typing.text = text;
    open.set(typing.key, typing);
    await typing.send();
  }
  const left = open.size;
  if (texts.length > left) message(`${texts.length - left} unsaved text${texts.length - left === 1 ? " was" : "s were"} in this browser and came back.`);
}

function remember(key, value) {
  try {
    localStorage[key] = JSON.stringify(value);
  } catch {
    message("This browser has no room left for unsaved texts.");
  }
}

function forget(key) {
  localStorage.removeItem(key);
}

function show(what = open.size ? "typing" : "saved") {
  const words = {
    saved: "All is saved",
    typing: "Not saved yet",
    saving: "Saving…",
    waiting: "Not saved: the server does not answer. The text is safe in this browser, and is sent again.",
  };
  const line = document.getElementById("saved");
  if (line.dataset.is === "waiting" && what === "typing") return;
  line.dataset.is = what;
  line.textContent = words[what];
}

addEventListener("beforeunload", (event) => {
  for (const typing of open.values()) typing.send();
  if (open.size) event.preventDefault();
});
