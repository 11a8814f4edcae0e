// One caption that can be edited where it stands.

import { h } from "./dom.js";
import { Typing } from "./saving.js";
import { state } from "./state.js";

/** A text field for the caption of an image; null: for a new one. `done(next)` when it is left by a key. */
export function captionField(image, caption, { done = () => null, label = "Caption", rows = 3 } = {}) {
  const typing = new Typing(image, caption?.id ?? null, caption?.text ?? "");
  const field = h("textarea", { rows, "aria-label": label, dir: "auto", spellcheck: "true", class: "caption-field" });
  field.value = typing.text;
  const fit = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  };
  field.addEventListener("input", () => { typing.input(field.value); fit(); });
  field.addEventListener("blur", () => typing.end());
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      event.stopPropagation();
      typing.end();
      done(event.key === "Enter");
    }
  });
  const resolved = (event) => {
    if (!field.isConnected) state.removeEventListener("resolved", resolved);
    else if (event.detail === typing) { field.value = typing.text; fit(); }
  };
  state.addEventListener("resolved", resolved);
  field.typing = typing;
  queueMicrotask(() => field.isConnected && fit());
  return field;
}

/** Who wrote a caption, how sure the model was, its status and its flags. */
export function captionFacts(caption) {
  const by = caption.written_by === "person" ? "person" : caption.model || "model";
  return h("p", { class: "facts" },
    h("span", { class: `status ${caption.status}` }, caption.status),
    " ",
    ...caption.flags.flatMap((flag) => [h("span", { class: "flag" }, flag), " "]),
    h("span", { class: "by" }, by),
    caption.confidence === null ? null : h("span", {}, ` · ${Math.round(100 * caption.confidence)} %`),
  );
}
