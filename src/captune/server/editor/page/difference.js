// What is taken from a text and what is put in its place, word by word.

import { h } from "./dom.js";

const MOST = 250_000; // pairs of words that are compared: longer texts are shown as a whole

export function difference(before, after) {
  const parts = [];
  const add = (tag, word) => {
    if (parts.at(-1)?.tag === tag) parts.at(-1).text += word;
    else parts.push({ tag, text: word });
  };
  for (const [tag, word] of steps(wordsOf(before), wordsOf(after))) add(tag, word);
  return h("p", { dir: "auto" }, ...parts.map(({ tag, text }) => (tag ? h(tag, {}, text) : text)));
}

/** Words with the spaces behind them, so that words that change side by side are one change. */
const wordsOf = (text) => text.match(/\S+\s*|\s+/g) ?? [];

/** The words of both in order: in both (""), only before ("del"), only after ("ins"). */
function* steps(from, to) {
  if (from.length * to.length > MOST) {
    yield ["del", from.join("")];
    yield ["ins", to.join("")];
    return;
  }
  // The longest common subsequence, from the end.
  const width = to.length + 1;
  const lengths = new Uint16Array((from.length + 1) * width);
  for (let i = from.length - 1; i >= 0; i -= 1) {
    for (let j = to.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = from[i] === to[j]
        ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  let i = 0;
  let j = 0;
  while (i < from.length || j < to.length) {
    if (i < from.length && j < to.length && from[i] === to[j]) {
      yield ["", from[i]];
      i += 1;
      j += 1;
    } else if (j === to.length || (i < from.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      yield ["del", from[i]];
      i += 1;
    } else {
      yield ["ins", to[j]];
      j += 1;
    }
  }
}
