// Copying and downloading.

import * as api from "./api.js";
import { mayLackItsEnd } from "./format.js";

const PIECE = 1024 * 1024;

/** Puts text on the clipboard. Browsers give the modern way to secure pages only; the old one still works elsewhere. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // not allowed just now: the old way asks nobody
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "off-screen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("The browser did not allow it.");
}

/**
 * Saves every byte of the log that the server still has, exactly as the command wrote it, and gives how many it has no
 * more: the name of the file says so. A link could not carry the Authorization header; so the pieces are fetched, and
 * the browser keeps a Blob's parts on disk when they are many.
 */
export async function downloadLog(execution, key, onProgress) {
  const parts = [];
  const end = Number(execution.logEndOffset);
  let offset = 0;
  let missing = 0; // before what is kept, and what was dropped while this goes on
  while (offset < end) {
    const answer = await api.output(key, offset, PIECE);
    for (const chunk of answer.chunks ?? []) parts.push(api.bytesOf(chunk));
    missing += Number(answer.skippedBytes);
    if (Number(answer.nextOffset) <= offset) throw new Error(`The server gave nothing from byte ${offset} on.`);
    offset = Number(answer.nextOffset);
    onProgress(Math.min(1, offset / end));
  }
  save(new Blob(parts, { type: "application/octet-stream" }), logName(key, missing, mayLackItsEnd(execution)));
  return missing;
}

function logName({ execId }, missing, lacksEnd) {
  if (missing) return `${execId}.incomplete-${missing}-bytes-missing.log`;
  return lacksEnd ? `${execId}.incomplete.log` : `${execId}.log`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be reading it
}
