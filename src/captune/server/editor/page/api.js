// Requests to the editor's server.

import { h, openDialog } from "./dom.js";

export class Problem extends Error {
  /** `status` 0: the server does not answer. `conflict`: what stands there now. */
  constructor(status, message, hint = "", conflict = null) {
    super(message);
    Object.assign(this, { status, hint, conflict });
  }

  /** Whether the same may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

async function call(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  let answer;
  try {
    answer = await fetch(`/v1/library/${path}`, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Problem(0, "The server does not answer.", "Is captune edit still running?");
  }
  if (answer.status === 401 || answer.status === 403) {
    if (answer.status === 401) {
      await enterKey();
      return call(method, path, body);
    }
  }
  let value = {};
  try {
    value = await answer.json();
  } catch {
    if (answer.ok) throw new Problem(0, "The answer was cut off.");
  }
  if (!answer.ok) throw new Problem(answer.status, value.detail ?? answer.statusText, value.hint, value.conflict ?? null);
  return value;
}

let entering = null;

/** Ask for the server's key until it is right. */
function enterKey() {
  entering ??= new Promise((resolve) => {
    openDialog("A key is needed", (dialog) => {
      const input = h("input", { type: "password", autocomplete: "current-password", required: true, autofocus: true });
      const wrong = h("p", { role: "alert" });
      const send = async (event) => {
        event.preventDefault();
        const answer = await fetch("/v1/session", {
          method: "POST", headers: { Authorization: `Bearer ${input.value}`, "Content-Type": "application/json" }, body: "{}",
        });
        if (!answer.ok) {
          wrong.textContent = (await answer.json()).detail;
          return;
        }
        dialog.close();
      };
      dialog.addEventListener("close", () => { entering = null; resolve(); });
      return h("form", { onsubmit: send }, h("label", {}, "Key ", input), wrong, h("button", {}, "Enter"));
    });
  });
  return entering;
}
