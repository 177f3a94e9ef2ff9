// Everything else that is known of an execution, as terms and descriptions.

import { element } from "./dom.js";
import { count, duration, moment, size } from "./format.js";

const secondsOf = (text) => Number(text?.replace("s", "") ?? 0);

function outputOf({ totals = [], logEndOffset = "0", logStartOffset = "0" }) {
  const dropped = totals.reduce((sum, total) => sum + Number(total.bytesDropped ?? 0), 0) || Number(logStartOffset);
  return size(Number(logEndOffset)) + (dropped ? `, of which ${size(dropped)} are no longer kept` : "");
}

// An execution does not tell whether it drops its oldest output or is ended, until it has come to that.
function limitOf({ maxOutputBytes = "0", logStartOffset = "0", overflowWaits, reason }) {
  if (!Number(maxOutputBytes)) return "";
  const limit = size(Number(maxOutputBytes));
  if (overflowWaits) return `${limit} of output; then it waits until its reader has used some up`;
  if (reason === "REASON_OUTPUT_LIMIT") return `${limit} of output, where it was ended`;
  if (Number(logStartOffset)) return `${limit} of output; it does not wait: the oldest is dropped`;
  return `${limit} of output; then it does not wait: the oldest is dropped, or it is ended`;
}

const heldOf = ({ overflowWaits, heldOffset = "0", endTime }) =>
  overflowWaits && !endTime ? `output from byte ${count(Number(heldOffset))} on` : "";

function usageOf({ usage }) {
  if (!usage) return "";
  const processor = (secondsOf(usage.userCpu) + secondsOf(usage.systemCpu)) * 1000;
  return `${duration(processor)} of CPU, ${size(Number(usage.maxRssBytes ?? 0))} of memory`;
}

const TERMS = [
  ["Id", (one) => one.execId],
  ["Caller", (one) => one.caller],
  ["Directory", (one) => one.workingDirectory],
  ["Environment", (one) => (one.environmentNames ?? []).join(" ")],
  ["Labels", (one) => Object.entries(one.labels ?? {}).map((pair) => pair.join("=")).join(" ")],
  ["Group", (one) => one.exclusiveGroup],
  ["Process", (one) => (one.pid ? String(one.pid) : "")],
  ["Created", (one) => (one.createTime ? moment(one.createTime) : "")],
  ["Started", (one) => (one.startTime ? moment(one.startTime) : "")],
  ["Ended", (one) => (one.endTime ? moment(one.endTime) : "")],
  ["Kept until", (one) => (one.expireTime ? moment(one.expireTime) : "")],
  ["Output", outputOf],
  ["Limit", limitOf],
  ["Held", heldOf],
  ["Used", usageOf],
  ["Left behind", (one) => (one.leftoverProcesses ? `${count(one.leftoverProcesses)} processes` : "")],
  ["Followers", (one) => (one.followers ? String(one.followers) : "")],
];

/** Elements for a <dl>. What is not known is left out. */
export function factsOf(execution) {
  const known = TERMS.map(([term, of]) => [term, of(execution)]).filter(([, text]) => text);
  return known.map(([term, text]) => element("div", {}, element("dt", {}, term), element("dd", {}, text)));
}
