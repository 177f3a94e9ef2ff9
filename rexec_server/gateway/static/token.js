// A fresh token from the caller's key: a compact JWE (dir, A256GCM) that names caller, server and time.

const LIFETIME = 60; // seconds; it need not outlive the call that it begins
const IV_BYTES = 12;
const ID_BYTES = 16;
const TAG_BYTES = 16;

const utf8 = new TextEncoder();
const random = (length) => crypto.getRandomValues(new Uint8Array(length));

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** One more token of this key's caller. */
export async function mint({ kid, sub, aud, key }) {
  const header = base64url(utf8.encode(JSON.stringify({ alg: "dir", enc: "A256GCM", kid })));
  const iat = Math.floor(Date.now() / 1000);
  const claims = { sub, aud, iat, exp: iat + LIFETIME, jti: base64url(random(ID_BYTES)) };
  const iv = random(IV_BYTES);
  // The additional data of a JWE is its header as it is sent: in base64url.
  const how = { name: "AES-GCM", iv, additionalData: utf8.encode(header), tagLength: TAG_BYTES * 8 };
  const sealed = new Uint8Array(await crypto.subtle.encrypt(how, key, utf8.encode(JSON.stringify(claims))));
  const end = sealed.length - TAG_BYTES;
  return [header, "", base64url(iv), base64url(sealed.subarray(0, end)), base64url(sealed.subarray(end))].join(".");
}
