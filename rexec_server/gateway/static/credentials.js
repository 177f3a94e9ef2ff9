// Who the page acts as. The only place that knows: whoever needs a header asks `authorization()`, for every call anew.
//
// With a key, each call gets a fresh token. Without one the bearer credential is a caller's name, which is enough for a
// server in --dev; there no name means `dev`.

import { forget, keep, kept } from "./key-store.js";
import { KeyError } from "./key-file.js";
import { mint } from "./token.js";

const STORED_AS = "rexec.caller";
const WORKS_AS_A_NAME = /^[\x21-\x7e]+$/; // what a header can carry

let proved = false; // whether the newest call carried a token

/** The chosen name; empty: the server decides. */
export function callerName() {
  try {
    return localStorage.getItem(STORED_AS) ?? "";
  } catch {
    return ""; // storage is forbidden here: the page works without it
  }
}

/** Acts under this name from now on. Says what is wrong with the name, or returns an empty string. */
export function actAs(name) {
  if (name && !WORKS_AS_A_NAME.test(name)) return "A caller's name has no spaces and only ASCII characters.";
  try {
    if (name) localStorage.setItem(STORED_AS, name);
    else localStorage.removeItem(STORED_AS);
  } catch {
    return "This browser does not let the page remember a caller.";
  }
  return "";
}

/** Acts with this key, {kid, sub, aud, key}, from now on. Raises KeyError. */
export async function actWith(key) {
  try {
    await keep(key);
  } catch {
    throw new KeyError("This browser does not let the page keep a key.");
  }
  actAs("");
}

export const forgetKey = forget;

/** What may be told of the key: {kid, sub, aud}; null without one. */
export async function heldKey() {
  const held = await kept();
  return held && { kid: held.kid, sub: held.sub, aud: held.aud };
}

/** The Authorization header for one call, or null for none. */
export async function authorization() {
  const held = await kept();
  proved = held !== null;
  if (held) return `Bearer ${await mint(held)}`;
  const name = callerName();
  return name ? `Bearer ${name}` : null;
}

/** Whether the newest call carried a proof of its caller, rather than a name or nothing. */
export const provesCaller = () => proved;
