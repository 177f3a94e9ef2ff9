// The gateway's /v1, as functions. Nothing else in the page knows an address, a header or the wire's names.

import { authorization } from "./credentials.js";
import { skewOf } from "./format.js";

const ANSWER_WITHIN = 15_000;

/** A call was refused or found nobody. `status` 0: no answer at all. */
export class ApiError extends Error {
  constructor(message, { status = 0, reason = "", violations = {}, retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.violations = violations;
    this.retryAfter = retryAfter;
  }

  /** True when trying the same again may well work: somebody is away, or busy. */
  get passes() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

async function call(method, path, { query = {}, body, headers = {}, signal, within = ANSWER_WITHIN } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== "" && one !== undefined) url.searchParams.append(name, one);
  }
  const sent = { Accept: "application/json", ...headers };
  const bearer = await authorization();
  if (bearer) sent.Authorization = bearer;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const patience = within ? [AbortSignal.timeout(within)] : [];
  const signals = signal ? [signal, ...patience] : patience;
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any(signals),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(navigator.onLine ? "The gateway does not answer." : "This device is offline.");
  }
  skewOf(response.headers.get("Date"));
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const said = (await response.json().catch(() => ({}))).error ?? {};
  const detail = (type) => said.details?.find((one) => one["@type"]?.endsWith(type)) ?? {};
  const violations = detail("BadRequest").fieldViolations ?? [];
  return new ApiError(said.message ?? `The gateway answered ${response.status}.`, {
    status: response.status,
    reason: detail("ErrorInfo").reason,
    violations: Object.fromEntries(violations.map(({ field, description }) => [field, description])),
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
  });
}

async function json(...args) {
  const response = await call(...args);
  try {
    return await response.json();
  } catch {
    throw new ApiError("The gateway's answer was cut short.");
  }
}

const pathOf = ({ execId }, below = "") => `/v1/executions/${encodeURIComponent(execId)}${below}`;

/** What the server is, and who it takes the page for. */
export const info = () => json("GET", "/v1/info");

/** A page of executions, newest first: {executions, nextPageToken}. */
export async function list({ states = [], caller = "", pageToken = "", pageSize = 100, signal }) {
  const query = { states, caller, page_token: pageToken, page_size: pageSize };
  const { executions = [], nextPageToken = "" } = await json("GET", "/v1/executions", { query, signal });
  return { executions, nextPageToken };
}

export const get = (key, signal) => json("GET", pathOf(key), { query: { caller: key.caller }, signal });

/** Starts a command. With the same execId and the same request again it is the same execution: a retry is safe. */
export const start = async (request) => (await json("POST", "/v1/executions", { body: request })).execution;

export const cancel = async (key, options = {}) =>
  (await json("POST", pathOf(key, "/cancel"), { body: { caller: key.caller, ...options } })).execution;

export const sendSignal = async (key, signal, scope) =>
  (await json("POST", pathOf(key, "/signal"), { body: { caller: key.caller, signal, scope } })).execution;

/** Forgets an ended execution. Only one's own: the contract has no caller here. */
export const remove = (key) => json("DELETE", pathOf(key));

/** The body of a stream of events, from an offset. It has no end by the clock: whoever reads watches for silence. */
export async function follow(key, offset, signal) {
  const headers = { Accept: "text/event-stream", "Last-Event-ID": String(offset) };
  const query = { caller: key.caller };
  return (await call("GET", pathOf(key, "/follow"), { query, headers, signal, within: 0 })).body;
}

/** A piece of the log from an offset: {execution, chunks, nextOffset, skippedBytes, eof}. */
export async function output(key, offset, maxBytes, signal) {
  const query = { caller: key.caller, offset, max_bytes: maxBytes };
  return json("GET", pathOf(key, "/output"), { query, signal });
}

/** The bytes of a chunk. */
export function bytesOf(chunk) {
  if (chunk.data === undefined) return new TextEncoder().encode(chunk.text ?? "");
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(chunk.data);
  return Uint8Array.from(atob(chunk.data), (character) => character.charCodeAt(0));
}
