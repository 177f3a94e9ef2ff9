// Building elements. Text only ever becomes a text node: there is no way through here to make markup of it.

/** The one element with this id; the page's own markup promises that it is there. */
export const byId = (id) => document.getElementById(id);

/** An element with a class, attributes and children; strings become text nodes. */
export function element(tag, { className = "", attributes = {}, on = {} } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  for (const [event, handler] of Object.entries(on)) made.addEventListener(event, handler);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets the text only when it differs, so that a selection in it and a screen reader are left alone. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
