// Puts the page together: what is open is in the address, so that a link, a reload and Back all work.

import * as api from "./api.js";
import { actAs, callerName } from "./credentials.js";
import { installDialogs, tell } from "./dialogs.js";
import { byId, setText } from "./dom.js";
import { ExecutionView } from "./execution-view.js";
import { ExecutionsList, addressOf } from "./executions-list.js";
import { installKeys } from "./keyboard.js";
import { installStartForm, openStartForm } from "./start-form.js";
import { installTheme } from "./theme.js";

let me = ""; // who the server says the page is
let wasAway = true;

const list = new ExecutionsList(connection);
const view = new ExecutionView({
  onChange: () => list.feed.refresh(),
  onAgain: openStartForm,
  onDeleted: () => {
    goTo("");
    list.feed.refresh();
  },
});
view.mayDelete = ({ caller }) => caller === me;

/** Tells how things stand with the server; `error` is null when it answers. */
function connection(error, wait) {
  const place = byId("connection");
  place.dataset.state = error ? "away" : "connected";
  setText(place.firstElementChild, error ? "not connected" : "connected");
  byId("banner").hidden = !error;
  if (error) setText(byId("banner-text"), advice(error, wait));
  if (wasAway && !error) {
    introduce();
    view.tryNow();
  }
  wasAway = Boolean(error);
}

function advice(error, wait) {
  if (error.status === 401 || error.status === 403) return `The server does not accept this caller: ${error.message}`;
  const again = `Trying again${wait >= 1000 ? ` in ${Math.round(wait / 1000)} s` : ""}. Commands go on meanwhile.`;
  if (error.status) return `The rexec server is away: ${error.message.replace(/\.?$/, ".")} ${again}`;
  return `${error.message} ${again}`;
}

/** Asks the server who it is and whom it takes the page for. */
async function introduce() {
  try {
    const info = await api.info();
    me = info.caller;
    setText(byId("version"), `rexec ${info.version}; at most ${info.maxRunning} run at once.`);
  } catch {
    me = callerName(); // told when the server answers again
  }
  setText(byId("caller"), `as ${me || "…"}`);
}

let routed = null; // the address that is shown; the browser tells of a change only later

function goTo(address) {
  location.hash = address;
  route();
}

function route() {
  if (location.hash === routed) return;
  routed = location.hash;
  const match = /^#\/([^/]+)\/([^/]+)$/.exec(location.hash);
  let key = null;
  try {
    key = match && { caller: decodeURIComponent(match[1]), execId: decodeURIComponent(match[2]) };
  } catch {
    // a broken address opens nothing
  }
  document.body.classList.toggle("is-open", Boolean(key));
  document.title = key ? `${key.execId} · rexec` : "rexec";
  list.mark(key ? addressOf(key) : "");
  view.open(key);
}

function close() {
  if (document.activeElement?.matches("input")) document.activeElement.blur();
  else if (view.isOpen) {
    const { hash } = location;
    goTo("");
    document.querySelector(`.item[href="${CSS.escape(hash)}"]`)?.focus();
  } else return false;
  return true;
}

function installCallerDialog() {
  const dialog = byId("caller-dialog");
  byId("caller").addEventListener("click", () => {
    byId("caller-name").value = callerName();
    tell(byId("caller-error"), "");
    dialog.showModal();
    byId("caller-name").select();
  });
  dialog.addEventListener("submit", () => {
    const wrong = actAs(byId("caller-name").value.trim());
    if (wrong) return tell(byId("caller-error"), wrong);
    dialog.close();
    goTo("");
    list.feed.startOver();
    introduce();
  });
}

installTheme(byId("theme"));
installDialogs();
installCallerDialog();
installStartForm((execution) => {
  goTo(addressOf(execution));
  list.feed.refresh();
  byId("log").focus({ preventScroll: true });
});
byId("start").addEventListener("click", () => openStartForm());
byId("start-here").addEventListener("click", () => openStartForm());
byId("help").addEventListener("click", () => byId("help-dialog").showModal());
byId("banner-retry").addEventListener("click", () => {
  list.feed.refresh();
  view.tryNow();
});

const down = () => list.move(1);
const up = () => list.move(-1);
// Arrows scroll the log while it has the focus; j and k move in the list from everywhere.
const unlessInLog = (act) => () => (document.activeElement === byId("log") ? false : act());
installKeys({
  j: down,
  k: up,
  ArrowDown: unlessInLog(down),
  ArrowUp: unlessInLog(up),
  "/": () => byId("search").focus(),
  "?": () => byId("help-dialog").showModal(),
  n: () => openStartForm(),
  c: () => view.askCancel(),
  g: () => view.isOpen && view.go("start"),
  G: () => view.isOpen && view.go("end"),
  Escape: close,
});

addEventListener("hashchange", route);
route();
list.feed.refresh();
