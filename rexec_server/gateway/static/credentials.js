// Who the page acts as. The only place that knows: whoever needs a header asks `authorization()`, for every call anew.
//
// In --dev the bearer credential is the caller's name, and none means `dev`. With real callers this is where a
// non-extractable key will be held and a fresh token minted per call; hence the promise, which today is kept at once.

const STORED_AS = "rexec.caller";
const WORKS_AS_A_NAME = /^[\x21-\x7e]+$/; // what a header can carry

/** The chosen caller; empty: the server decides. */
export function callerName() {
  try {
    return localStorage.getItem(STORED_AS) ?? "";
  } catch {
    return ""; // storage is forbidden here: the page works without it
  }
}

/** Acts as this caller from now on. Says what is wrong with the name, or returns an empty string. */
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

/** The Authorization header for one call, or null for none. */
export async function authorization() {
  const name = callerName();
  return name ? `Bearer ${name}` : null;
}
