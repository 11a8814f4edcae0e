// Two texts for one caption: a person chooses.

import { h, openDialog } from "./dom.js";
import { state } from "./state.js";

/** The text that is to stand: one's own, another one; null: what stands there. `there` null: it was taken away. */
export function chooseText(image, own, there) {
  return new Promise((resolve) => {
    let chosen = null;
    openDialog("Somebody changed this caption meanwhile", (dialog) => {
      const take = (text) => () => { chosen = text(); dialog.close(); };
      const both = h("textarea", { rows: 4, id: "conflict-own" });
      both.value = own;
      dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing is dropped by accident
      dialog.addEventListener("close", () => resolve(chosen));
      return h("div", { class: "conflict" },
        h("p", {}, state.rows.get(image)?.path ?? ""),
        h("div", { class: "texts" },
          h("section", {},
            h("h3", {}, "What stands there now"),
            h("p", { class: "there" }, there ?? "Nothing: the caption was taken away."),
            h("button", { type: "button", onclick: take(() => null) }, there === null ? "Leave it away" : "Leave this"),
          ),
          h("section", {},
            h("h3", {}, h("label", { for: "conflict-own" }, "What you wrote")),
            both,
            h("button", { type: "button", class: "main", onclick: take(() => both.value.trim() || null) }, "Write this"),
          ),
        ),
        h("p", { class: "hint" }, "What stands there now stays in the history, whatever you choose."),
      );
    }, "wide", false);
  });
}
