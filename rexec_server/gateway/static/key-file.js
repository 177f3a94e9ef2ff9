// A caller's key file, checked, and made into a key that no script can read out again.

const LARGEST_FILE = 64 * 1024;
const SECRET = /^[A-Za-z0-9_-]{43}$/; // 32 bytes in base64url

/** A key cannot be used; the message is a sentence for the person who gave it. */
export class KeyError extends Error {}

/** The text of a chosen file. */
export async function textOf(file) {
  if (file.size > LARGEST_FILE) throw new KeyError("This is no key file: it is too large.");
  return file.text();
}

/** From a file's text to {kid, sub, aud, key}; sub and aud are empty where the file does not say. */
export async function importKey(text) {
  if (!globalThis.crypto?.subtle) {
    throw new KeyError("Browsers give cryptography only to pages that came over https, or from this very machine.");
  }
  const jwk = parse(text);
  const { kid, sub = "", aud = "" } = jwk;
  const secret = Uint8Array.from(atob(jwk.k.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  try {
    return { kid, sub, aud, key: await crypto.subtle.importKey("raw", secret, "AES-GCM", false, ["encrypt"]) };
  } finally {
    secret.fill(0);
  }
}

// No message repeats what the file holds.
function parse(text) {
  let jwk;
  try {
    jwk = JSON.parse(text);
  } catch {
    throw new KeyError("This is no key file: it is not JSON. `rexec-server keys new` writes one.");
  }
  if (jwk === null || typeof jwk !== "object" || Array.isArray(jwk)) throw new KeyError("This is no key file.");
  if (jwk.keys) throw new KeyError("This file holds a set of keys. Give the file of one.");
  const { kty, alg = "dir", enc = "A256GCM", kid, k, sub = "", aud = "" } = jwk;
  if (kty !== "oct" || alg !== "dir" || enc !== "A256GCM") {
    throw new KeyError("This key is of another kind: a caller’s key has kty oct, alg dir and enc A256GCM.");
  }
  if (typeof kid !== "string" || !kid) throw new KeyError("This key has no name: “kid” is missing.");
  if (typeof k !== "string" || !SECRET.test(k)) throw new KeyError("This key is not whole: “k” must have 32 bytes.");
  if (typeof sub !== "string" || typeof aud !== "string") throw new KeyError("In this key “sub” or “aud” is no text.");
  return jwk;
}
