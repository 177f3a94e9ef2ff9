// Where the browser keeps the caller's key from visit to visit: IndexedDB, which takes a key that cannot be read out.

const DATABASE = "rexec";
const STORE = "keys";
const CALLER = "caller"; // the one key of this page

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// Opened for each use: a connection that is kept open would keep other tabs from changing anything.
async function withStore(mode, use) {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await done(opening);
  try {
    return await done(use(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

/** The key that is kept: {kid, sub, aud, key}; null when there is none, or the browser keeps nothing. */
export async function kept() {
  try {
    return (await withStore("readonly", (store) => store.get(CALLER))) ?? null;
  } catch {
    return null; // storage is forbidden here: the page works without it
  }
}

/** Keeps this one instead. Raises what the browser says when it does not. */
export const keep = (held) => withStore("readwrite", (store) => store.put(held, CALLER));

export const forget = () => withStore("readwrite", (store) => store.delete(CALLER));
