// The dialogs: opening, closing, and asking before something is ended.

import { byId, setText } from "./dom.js";

/** Makes every dialog closable by its close buttons and by a click beside it; Escape the browser does itself. */
export function installDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || target.closest("[data-close]")) dialog.close();
    });
    dialog.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  }
}

/** Shows a refusal where the person looks, or takes it away. */
export function tell(place, message) {
  setText(place, message);
  place.hidden = !message;
}

const dialog = byId("confirm-dialog");
const yes = byId("confirm-yes");
let act = async () => {};

/**
 * Asks, and does it on yes. The dialog stays open with what went wrong, so that it can be tried again.
 * `withSignal` adds the choice of a signal; `action(signal, scope)` gets it.
 */
export function confirm({ heading, command, text, button, withSignal = false, action }) {
  setText(byId("confirm-heading"), heading);
  setText(byId("confirm-command"), command);
  setText(byId("confirm-text"), text);
  setText(yes, button);
  byId("signal-fields").hidden = !withSignal;
  tell(byId("confirm-error"), "");
  act = action;
  dialog.showModal();
  (withSignal ? byId("signal-number") : yes).focus();
}

dialog.addEventListener("submit", async () => {
  yes.disabled = true;
  const asked = act;
  try {
    await asked(Number(byId("signal-number").value), byId("signal-scope").value);
    if (act === asked) dialog.close();
  } catch (error) {
    tell(byId("confirm-error"), error.message);
  } finally {
    yes.disabled = false;
  }
});

let hide;

/** Says something in passing. */
export function toast(message) {
  const place = byId("toast");
  tell(place, message);
  clearTimeout(hide);
  hide = setTimeout(() => (place.hidden = true), 4000);
}
