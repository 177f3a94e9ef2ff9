// Keys for the whole page. None of them acts while somebody types, or while a dialog is open.

const TYPES = "input, textarea, select, [contenteditable]";

/** `keys` maps a key to what it does; return false from it to leave the key to the browser. */
export function installKeys(keys) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return; // Escape closes it, by itself
    const typing = event.target.matches?.(TYPES);
    if (typing && event.key !== "Escape") return;
    const act = keys[event.key];
    if (act && act(event) !== false) event.preventDefault();
  });
}
