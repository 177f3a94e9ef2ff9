// The form that starts a command.

import * as api from "./api.js";
import { byId } from "./dom.js";
import { tell } from "./dialogs.js";

const form = byId("start-form");
const dialog = byId("start-dialog");
const error = byId("start-error");
const UNITS = { s: 1, m: 60, h: 3600, d: 86400 };

let sent = { request: "", execId: "" }; // what was last tried, and its id

/** A new id. crypto.randomUUID is for secure pages only; this works on all. */
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** 90, 90s, 1.5h as the seconds of a proto3 JSON duration; empty for none. */
function timeoutOf(text) {
  if (!text) return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([smhd]?)$/.exec(text);
  if (!match) throw new Error("The timeout is a number of seconds, or such as 5m, 2h, 1d.");
  const seconds = Number(match[1]) * UNITS[match[2] || "s"];
  return `${seconds.toFixed(3)}s`;
}

function pairsOf(text, what) {
  const lines = text.split("\n").filter((line) => line.trim());
  const pairs = lines.map((line) => {
    const equals = line.indexOf("=");
    if (equals < 1) throw new Error(`${what}: “${line.trim()}” is not NAME=value.`);
    return [line.slice(0, equals).trim(), line.slice(equals + 1)];
  });
  return Object.fromEntries(pairs);
}

function commandOf(fields) {
  if (fields.kind.value === "shell") {
    if (!fields.shell.value.trim()) throw new Error("Which command? The shell line is empty.");
    return { shell: fields.shell.value };
  }
  const words = fields.arguments.value.replace(/\n$/, "").split("\n");
  if (!words[0].trim()) throw new Error("Which program? The first line is empty.");
  return { arguments: words };
}

function requestOf(fields) {
  const request = {
    ...commandOf(fields),
    environmentVariables: pairsOf(fields.environment.value, "Environment"),
    labels: pairsOf(fields.labels.value, "Labels"),
    timeout: timeoutOf(fields.timeout.value.trim()),
  };
  if (fields.directory.value.trim()) request.workingDirectory = fields.directory.value.trim();
  if (fields.merged.checked) request.stderrMode = "STDERR_MODE_MERGED";
  return request;
}

function showKind() {
  const shell = form.elements.kind.value === "shell";
  byId("shell-field").hidden = !shell;
  byId("arguments-field").hidden = shell;
}

// The same request keeps its id: when an answer was lost, trying again finds the command that was started, not a second.
function idFor(request) {
  const text = JSON.stringify(request);
  if (sent.request !== text) sent = { request: text, execId: newId() };
  return sent.execId;
}

function messageOf(refusal) {
  const violations = Object.entries(refusal.violations ?? {}).map(([field, what]) => `${field}: ${what}`);
  return violations.length ? violations.join("\n") : refusal.message;
}

/** `onStarted(execution)` is told of each start. */
export function installStartForm(onStarted) {
  form.elements.kind.forEach((radio) => radio.addEventListener("change", showKind));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    else if (event.key === "Enter" && !event.shiftKey && event.target.name === "shell") {
      event.preventDefault(); // a line is entered with Enter; Shift+Enter makes a second
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", async () => {
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    tell(error, "");
    try {
      const request = requestOf(form.elements);
      const execution = await api.start({ execId: idFor(request), ...request });
      sent = { request: "", execId: "" };
      dialog.close();
      onStarted(execution);
    } catch (refusal) {
      tell(error, messageOf(refusal));
    } finally {
      button.disabled = false;
    }
  });
}

/** Opens it, as it was left, or filled with what an execution was started with. */
export function openStartForm(execution) {
  tell(error, "");
  if (execution) fill(execution);
  showKind();
  dialog.showModal();
  form.elements[form.elements.kind.value].focus();
}

// Environment values are never told by the server: only the names can be filled in.
function fill({ shell, arguments: words = [], workingDirectory = "", environmentNames = [], labels = {} }) {
  form.reset();
  const fields = form.elements;
  fields.kind.value = shell ? "shell" : "arguments";
  fields.shell.value = shell;
  fields.arguments.value = words.join("\n");
  fields.directory.value = workingDirectory;
  fields.environment.value = environmentNames.map((name) => `${name}=`).join("\n");
  fields.labels.value = Object.entries(labels).map((pair) => pair.join("=")).join("\n");
}
