// The captions of one image, a block for each model, each caption with a button that copies it. Text is only ever set
// as text: whatever a caption holds, none of it becomes markup.
const COPIED_MS = 2000;

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers have no clipboard where the page comes over plain HTTP from another machine.
  const area = element("textarea", "hidden", text);
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not allowed");
}

function copyButton(caption, label, status) {
  const button = element("button", "copy", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy ${label}`);
  button.onclick = async () => {
      try {
      await copy(caption.text);
      button.textContent = "Copied";
      status.textContent = `Copied: ${caption.text}`;
    } catch {
      button.textContent = "Select it";
      status.textContent = "The browser does not allow copying; the caption is selected.";
      getSelection().selectAllChildren(button.parentElement.querySelector(".text"));
    }
    button.focus();
    setTimeout(() => {
      button.textContent = "Copy";
      status.textContent = "";
    }, COPIED_MS);
  };
  return button;
}

function modelBlock({ model, captions }, { image, language }, status) {
  const block = element("div", "model");
  block.setAttribute("role", "group");
  block.setAttribute("aria-label", `Captions of ${image} by ${model}`);
  block.append(element("h4", "name", model));
  const list = element("ul", "list");
  for (const [index, caption] of captions.entries()) {
    const item = element("li", "caption");
    const text = element("p", "text", caption.text || "(no words)");
    text.dir = "auto";
    if (language) text.lang = language;
    const foot = element("div", "foot");
    const number = captions.length > 1 ? `caption ${index + 1}` : "caption";
    foot.append(element("span", "confidence", caption.confidence));
    foot.append(copyButton(caption, `${number} of ${image} by ${model}`, status));
    item.append(text);
    for (const flag of caption.flags) item.append(element("p", "flag", `Check it: ${flag}`));
    item.append(foot);
    list.append(item);
  }
  block.append(list);
  return block;
}

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".captions");
  const shown = JSON.stringify(data);
  if (root.dataset.shown === shown) return;
  root.dataset.shown = shown;
  const status = element("span", "hidden");
  status.setAttribute("role", "status");
  root.replaceChildren(...data.models.map((one) => modelBlock(one, data, status)), status);
}
