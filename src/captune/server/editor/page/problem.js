// Why an image is not shown, in its place.

import { h } from "./dom.js";

/** Put the reason into the place of an image that could not be loaded; called with its "error" event. */
export async function explainImage({ target }) {
  const source = target.getAttribute("src");
  if (!source) return; // its request was ended
  let reason = "It cannot be shown.";
  try {
    reason = (await (await fetch(source)).json()).detail ?? reason;
  } catch {
    return; // without the server nothing is known
  }
  if (target.getAttribute("src") === source) target.replaceWith(h("p", { class: "problem" }, reason));
}
