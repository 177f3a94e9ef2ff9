// Who the page acts as: the form that says it and changes it.

import { actAs, actWith, callerName, forgetKey, heldKey } from "./credentials.js";
import { tell } from "./dialogs.js";
import { byId, setText } from "./dom.js";
import { KeyError, importKey, textOf } from "./key-file.js";

const dialog = byId("caller-dialog");
const error = byId("caller-error");
const file = byId("key-file");
const pasted = byId("key-text");

let pending = null; // a key that was read, and does not say whose it is or for which server
let required = false; // the server takes no names
let onChange = () => {};

/** `changed` is called when the page acts as somebody else. */
export function installCallerDialog(changed) {
  onChange = changed;
  byId("caller").addEventListener("click", () => askCaller());
  byId("key-forget").addEventListener("click", () => attempt(forgetIt));
  file.addEventListener("change", () => attempt(async () => file.files[0] && take(await textOf(file.files[0]))));
  pasted.addEventListener("paste", (event) => {
    event.preventDefault(); // read here, a pasted key never stands in the page
    attempt(() => take(event.clipboardData.getData("text")));
  });
  dialog.addEventListener("submit", () => attempt(submit));
  dialog.addEventListener("close", clear);
}

/** Opens it. With `prove` only a key is asked for: the server takes no names. */
export async function askCaller({ prove = false } = {}) {
  required = prove;
  clear();
  await show();
  if (!dialog.open) dialog.showModal();
  const first = [byId("key-forget"), byId("caller-name"), file].find((one) => one.checkVisibility());
  first?.focus();
  if (first === byId("caller-name")) first.select();
}

function clear() {
  pending = null;
  file.value = pasted.value = "";
  for (const field of [byId("key-sub"), byId("key-aud")]) field.value = "";
  byId("key-unsaid").hidden = true;
  tell(error, "");
}

async function show() {
  const held = await heldKey();
  byId("key-held").hidden = !held;
  byId("caller-by-name").hidden = Boolean(held) || required;
  byId("caller-proof").hidden = Boolean(held) || !required;
  byId("key-import").hidden = Boolean(held);
  byId("key-import").open = required;
  byId("caller-use").hidden = Boolean(held);
  byId("caller-name").value = callerName();
  setText(byId("key-caller"), held?.sub ?? "");
  setText(byId("key-id"), held?.kid ?? "");
  setText(byId("key-audience"), held?.aud ?? "");
}

// A sentence, whatever goes wrong.
async function attempt(action) {
  tell(error, "");
  try {
    await action();
  } catch (trouble) {
    tell(error, trouble instanceof KeyError ? trouble.message : "That did not work: the browser refused it.");
  } finally {
    file.value = pasted.value = "";
  }
}

async function submit() {
  const text = pasted.value.trim();
  pasted.value = "";
  if (text) return take(text);
  if (pending) return use(completed());
  if (required) throw new KeyError("Choose your key file, or paste what is in it.");
  const wrong = actAs(byId("caller-name").value.trim());
  if (wrong) throw new KeyError(wrong);
  changed();
}

async function take(text) {
  pending = null;
  const key = await importKey(text);
  if (key.sub && key.aud) return use(key);
  pending = key;
  byId("key-unsaid").hidden = false;
  byId("key-sub-field").hidden = Boolean(key.sub);
  byId("key-aud-field").hidden = Boolean(key.aud);
  byId(key.sub ? "key-aud" : "key-sub").focus();
}

function completed() {
  const sub = pending.sub || byId("key-sub").value.trim();
  const aud = pending.aud || byId("key-aud").value.trim();
  if (!sub || !aud) throw new KeyError(`The file does not say ${sub ? "which server the key is for" : "whose key it is"}.`);
  return { ...pending, sub, aud };
}

async function use(key) {
  await actWith(key);
  changed();
}

function changed() {
  const kept = required; // whoever was only asked for a proof goes on where he was
  dialog.close();
  onChange(kept);
}

async function forgetIt() {
  await forgetKey();
  await show();
  onChange(false);
  byId("key-import").querySelector("summary").focus();
}
