// Tokens and keys, opened again with the same cryptography that browsers have.

import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import test from "node:test";

globalThis.crypto ??= webcrypto;

const { clockIsOff, skewOf } = await import("../../../rexec_server/gateway/static/format.js");
const { importKey, KeyError } = await import("../../../rexec_server/gateway/static/key-file.js");
const { mint } = await import("../../../rexec_server/gateway/static/token.js");

const SECRET = Buffer.from(Array.from({ length: 32 }, (_, at) => 255 - at));
const FILE = { kty: "oct", k: SECRET.toString("base64url"), kid: "ü-1", alg: "dir", enc: "A256GCM", sub: "ü", aud: "b7" };

async function open(token) {
  const [header, empty, iv, ciphertext, tag] = token.split(".");
  assert.equal(empty, "");
  const key = await crypto.subtle.importKey("raw", SECRET, "AES-GCM", false, ["decrypt"]);
  const how = { name: "AES-GCM", iv: Buffer.from(iv, "base64url"), additionalData: Buffer.from(header) };
  const sealed = Buffer.concat([Buffer.from(ciphertext, "base64url"), Buffer.from(tag, "base64url")]);
  const plain = Buffer.from(await crypto.subtle.decrypt(how, key, sealed));
  return [JSON.parse(Buffer.from(header, "base64url")), JSON.parse(plain)];
}

test("a token names caller, server and time, whatever the letters of their names", async () => {
  const key = await importKey(JSON.stringify(FILE));
  assert.equal(key.key.extractable, false);
  const [header, claims] = await open(await mint(key));
  assert.deepEqual(header, { alg: "dir", enc: "A256GCM", kid: "ü-1" });
  assert.deepEqual(Object.keys(claims), ["sub", "aud", "iat", "exp", "jti"]);
  assert.deepEqual([claims.sub, claims.aud, claims.exp - claims.iat], ["ü", "b7", 60]);
});

test("no two tokens have the same id, or are sealed with the same random bytes", async () => {
  const key = await importKey(JSON.stringify(FILE));
  const tokens = await Promise.all(Array.from({ length: 200 }, () => mint(key)));
  const ids = await Promise.all(tokens.map(async (token) => (await open(token))[1].jti));
  assert.equal(new Set(ids).size, 200);
  assert.equal(new Set(tokens.map((token) => token.split(".")[2])).size, 200);
});

test("every other file is refused with a sentence that repeats nothing of it", async () => {
  const wrong = [{ k: "x".repeat(42) }, { k: 7 }, { kid: "" }, { sub: 7 }, { aud: {} }, { enc: "A128GCM" }, { alg: "RSA" }];
  const texts = wrong.map((members) => JSON.stringify({ ...FILE, ...members }));
  for (const text of [...texts, "", "null", "7", "{}", `${JSON.stringify(FILE)}x`]) {
    await assert.rejects(importKey(text), (error) => error instanceof KeyError && !error.message.includes(FILE.k));
  }
});

test("a clock is wrong when no token of it would be good", () => {
  skewOf(new Date(Date.now() + 20_000).toUTCString());
  assert.equal(clockIsOff(), false);
  skewOf(new Date(Date.now() - 90_000).toUTCString());
  assert.equal(clockIsOff(), true);
});
