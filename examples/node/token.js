// Makes a token for one call from a caller's key, with the JOSE library `jose`:
//
//     node token.js KEYFILE        prints one
//
// A token is a compact JWE (dir, A256GCM) that names caller, server and time. Any JOSE library makes one.
// REXEC_CALLER and REXEC_AUDIENCE say whose key it is and for which server, where its file does not.
'use strict';

const { randomBytes, webcrypto } = require('node:crypto');
const { readFile } = require('node:fs/promises');

globalThis.crypto ??= webcrypto; // Node.js 18 does not have it there by itself

const LIFETIME_SECONDS = 60; // at most 300

async function freshToken(path) {
  const { EncryptJWT, importJWK } = await import('jose');
  const jwk = parse(await readFile(path, 'utf8'), path);
  const caller = jwk.sub || process.env.REXEC_CALLER;
  const audience = process.env.REXEC_AUDIENCE || jwk.aud;
  if (!caller || !audience) {
    throw new Error(`${path} does not say whose key it is, or for which server: set REXEC_CALLER and REXEC_AUDIENCE`);
  }
  const now = Math.floor(Date.now() / 1000);
  return new EncryptJWT()
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: jwk.kid })
    .setSubject(caller)
    .setAudience(audience)
    .setIssuedAt(now)
    .setExpirationTime(now + LIFETIME_SECONDS)
    .setJti(randomBytes(16).toString('base64url')) // a token starts one command
    .encrypt(await importJWK(jwk, 'dir'));
}

// Node's own message would repeat a piece of the file, which may be a piece of the key.
function parse(text, path) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${path} is no caller's key: it is not JSON`);
  }
}

module.exports = { freshToken };

async function main([path]) {
  if (!path) throw new Error('usage: node token.js KEYFILE');
  console.log(await freshToken(path));
}

if (require.main === module) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(`token: ${error.message}`);
    process.exitCode = 1;
  });
}
