// Puts the page together: what is open is in the address, so that a link, a reload and Back all work.

import * as api from "./api.js";
import { askCaller, installCallerDialog } from "./caller-dialog.js";
import { callerName, heldKey, provesCaller } from "./credentials.js";
import { installDialogs } from "./dialogs.js";
import { byId, setText } from "./dom.js";
import { ExecutionView } from "./execution-view.js";
import { ExecutionsList, addressOf } from "./executions-list.js";
import { clockIsOff } from "./format.js";
import { installKeys } from "./keyboard.js";
import { installStartForm, openStartForm } from "./start-form.js";
import { installTheme } from "./theme.js";

let me = ""; // who the server says the page is
let wasAway = true;
let unknown = false; // the server asks who the page is, and there is no key
let asked = false; // once for each caller: whoever closes the question finds it again behind a button

const list = new ExecutionsList(connection, (executions) => view.learn(executions));
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
  unknown = error?.status === 401 && !provesCaller();
  setText(place.firstElementChild, unknown ? "not signed in" : error ? "not connected" : "connected");
  byId("banner").hidden = !error;
  setText(byId("banner-retry"), unknown ? "Sign in" : "Try now");
  if (error) setText(byId("banner-text"), advice(error, wait));
  if (unknown && !asked) askForProof();
  if (wasAway && !error) {
    introduce();
    view.tryNow();
  }
  wasAway = Boolean(error);
}

function askForProof() {
  asked = true;
  askCaller({ prove: true });
}

function advice(error, wait) {
  if (unknown) return "This server asks who you are.";
  if (error.status === 401 && clockIsOff()) return "Tokens tell the time, and this device’s clock is wrong: set it right.";
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
    me = (await heldKey())?.sub ?? callerName(); // told when the server answers again
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

/** The page acts as somebody else now; `stays` where it is when only a proof was missing. */
function onCaller(stays) {
  asked = false;
  if (stays) {
    routed = null;
    route();
  } else goTo("");
  list.feed.startOver();
  introduce();
}

installTheme(byId("theme"));
installDialogs();
installCallerDialog(onCaller);
installStartForm((execution) => {
  goTo(addressOf(execution));
  list.feed.refresh();
  byId("log").focus({ preventScroll: true });
});
byId("start").addEventListener("click", () => openStartForm());
byId("start-here").addEventListener("click", () => openStartForm());
byId("help").addEventListener("click", () => byId("help-dialog").showModal());
byId("banner-retry").addEventListener("click", () => {
  if (unknown) return askForProof();
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
