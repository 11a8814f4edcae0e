// The keywords of an image: each can be taken away, and others be added.

import { addKeywords, removeKeyword } from "./actions.js";
import { get } from "./api.js";
import { h } from "./dom.js";

export function keywordList(row) {
  const input = h("input", {
    type: "text", "aria-label": "Add keywords, with commas between", placeholder: "add keywords", list: "known-keywords",
    class: "add-keyword", maxlength: 500, autocomplete: "off",
  });
  const add = () => {
    const words = input.value.split(",").map((word) => word.trim()).filter(Boolean);
    input.value = "";
    if (words.length) addKeywords(row.id, words);
  };
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      add();
    }
  });
  input.addEventListener("change", add);
  input.addEventListener("input", () => suggest(input.value));
  input.addEventListener("focus", () => suggest(""));
  return h("div", { class: "keyword-list" },
    h("ul", { "aria-label": "Keywords" }, ...row.keywords.map((keyword) =>
      h("li", {}, keyword, h("button", {
        type: "button", class: "quiet", "aria-label": `Remove the keyword ${keyword}`, onclick: () => removeKeyword(row.id, keyword),
      }, "✕")))),
    input,
  );
}

let last = null;

/** Fill the list of keywords that are known, with how many images have each. */
export async function suggest(beginning) {
  const word = beginning.split(",").at(-1).trim();
  if (word === last) return;
  last = word;
  try {
    const { keywords } = await get(`keywords?limit=50&beginning=${encodeURIComponent(word)}`);
    document.getElementById("known-keywords").replaceChildren(...keywords.map(({ keyword, images }) => h("option", { value: keyword }, `${images}`)));
  } catch {
    last = null; // without the server there is nothing to suggest
  }
}
