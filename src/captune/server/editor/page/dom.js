// Elements from code.

/** An element with properties (`on…`: listeners, others: attributes or properties) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "value" || name === "checked" || name === "hidden" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function replaceChildren(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

export const number = (value) => value.toLocaleString("en");

/** A count with its noun: 1 image, 2 images. */
export const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Whether an element takes what is typed. */
export function takesText(element) {
  return element instanceof HTMLElement && element.matches("input:not([type=checkbox]), textarea, select");
}

/** A modal dialog that is removed when it is closed; `content(dialog)` fills it. */
export function openDialog(title, content, className = "", closable = true) {
  const before = document.activeElement;
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const dialog = h("dialog", { class: className, "aria-labelledby": id });
  dialog.append(
    h("div", { class: "dialog-head" },
      h("h2", { id }, title),
      closable ? h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕") : "",
    ),
    content(dialog),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
