// A line that says what happened, for a while; screen readers speak it.

import { h } from "./dom.js";

const SECONDS = 8;

export function message(text) {
  const line = h("p", {}, text);
  document.getElementById("messages").replaceChildren(line);
  setTimeout(() => line.remove(), 1000 * SECONDS);
}
