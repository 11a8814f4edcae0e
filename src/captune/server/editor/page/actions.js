// What is done to images with one key or click, each as a step of its own.

import { Problem, post } from "./api.js";
import { counted } from "./dom.js";
import { message } from "./messages.js";
import { latest, sendAll } from "./saving.js";
import { mainCaption, state } from "./state.js";

/** Make changes as one step; whether they were made. */
export async function step(name, changes) {
  if (!changes.length) return false;
  await sendAll();
  return attempt(() => post("steps", { name, changes }), name);
}

async function attempt(request) {
  try {
    const answer = await request();
    state.changed(answer);
    return answer;
  } catch (problem) {
    await explain(problem);
    return null;
  }
}

/** Say what went wrong, and show what stands there now. */
export async function explain(problem) {
  if (!(problem instanceof Problem)) throw problem;
  message(`${problem.message} ${problem.hint ?? ""}`.trim());
  if (problem.status === 409) await state.poll().catch(() => null);
}

export async function setStatus(image, caption, status) {
  await sendAll(); // what is being typed comes first, and the caption has another number then
  const row = state.rows.get(image);
  const found = row?.captions.find((each) => each.id === latest(caption.id));
  if (!found || found.status === status) return true;
  const names = { approved: "approve", rejected: "reject", draft: "make a draft again" };
  return step(names[status], [{ kind: "status", caption: found.id, status, was: found.status }]);
}

/** The captions of models that are rejected where another one is taken. */
export const othersOf = (row, caption) => row.captions.filter((each) => each.id !== caption.id && each.written_by === "model" && each.status !== "rejected");

/** Approve one of several captions, and reject those of other models. */
export async function take(image, caption) {
  await sendAll();
  const row = state.rows.get(image);
  const taken = row?.captions.find((each) => each.id === latest(caption.id));
  if (!taken) return null;
  const changes = [taken.status === "approved" ? null : [taken, "approved"], ...othersOf(row, taken).map((each) => [each, "rejected"])];
  return step("take a caption", changes.filter(Boolean).map(([each, status]) => (
    { kind: "status", caption: each.id, status, was: each.status })));
}

export const DEFAULT_MARK = "look again";

export function toggleMark(row) {
  return step(row.mark ? "take the mark away" : "mark", [{ kind: "mark", image: row.id, mark: row.mark ? null : DEFAULT_MARK }]);
}

export const addKeywords = (image, add) => step("add a keyword", [{ kind: "keywords", image, add }]);
export const removeKeyword = (image, keyword) => step("remove a keyword", [{ kind: "keywords", image, remove: [keyword] }]);

export async function removeCaption(image, caption) {
  await sendAll();
  return step("take a caption away", [{ kind: "remove", image, caption: latest(caption) }]);
}

/** Write a former text again, in the place of the first caption. */
export function writeAgain(row, text) {
  return step("take a former text", [{ kind: "caption", image: row.id, of: mainCaption(row)?.id ?? null, text }]);
}

export async function undo(how = "undo") {
  await sendAll();
  const answer = await attempt(() => post(how));
  if (!answer) return;
  if (!answer.step) {
    message(`There is nothing to ${how}.`);
    return;
  }
  message(`${how === "undo" ? "Undone" : "Done again"}: ${answer.step.name} (${counted(answer.changed.length, "image")})`);
  if (answer.changed.length === 1 && state.places.has(answer.changed[0])) state.go(state.places.get(answer.changed[0]));
}

export const setSplit = (image, split) => step("change the split", [{ kind: "split", image, split }]);

/** Write what people changed into the files of the data set or the job. */
export async function writeBack() {
  const button = document.getElementById("write");
  button.disabled = true;
  message(`${button.textContent}…`);
  try {
    await sendAll();
    message((await post("write")).sentence);
    await state.refreshAbout();
  } catch (problem) {
    await explain(problem);
  } finally {
    button.disabled = false;
  }
}

/** Captions by a model for images, a few at a time; `goesOn()` false stops it. How many were written. */
export async function draft(model, images, goesOn = () => true, progress = () => null) {
  let written = 0;
  const failed = [];
  for (let start = 0; start < images.length && goesOn(); start += 4) {
    const answer = await attempt(() => post("drafts", { model, images: images.slice(start, start + 4) }));
    if (!answer) break;
    written += answer.changed.length;
    failed.push(...Object.values(answer.failed));
    progress(Math.min(images.length, start + 4), images.length);
  }
  if (failed.length) message(`${counted(failed.length, "image")} could not be captioned: ${failed[0]}`);
  return written;
}

