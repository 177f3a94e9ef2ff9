"""`/api/<mode>/<uuid>`: for people with httpie, curl or a browser. docs/protocol.md has its contract."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from google.protobuf.duration_pb2 import Duration
from rexec.v1 import execution_service_pb2 as api
from rexec.v1.execution_pb2 import Channel, Execution, Reason

from rexec_client.errors import BusyError, NotFoundError, ResourceExhaustedError
from rexec_client.executions import is_ended, reason_name, waiting_name
from rexec_server.gateway import body
from rexec_server.gateway.command import exec_request
from rexec_server.gateway.credential import Credentials, exec_id_for
from rexec_server.gateway.gaps import Gaps
from rexec_server.gateway.guard import note_execution
from rexec_server.gateway.problems import Problem
from rexec_server.gateway.resume import start_offset
from rexec_server.gateway.seen import News, Seen, news
from rexec_server.gateway.streams import Streams
from rexec_server.gateway.upstream import Upstream, credential

_log = logging.getLogger("rexec.gateway")

# "That caller's command" is the newest execution in this exclusive group.
GROUP = "json"
BODY_BYTES = 64 * 1024
# The bytes of a poll are bounded before they become JSON, in which each may take six.
POLL_BYTES = 64 * 1024
# A command this young, of which nothing is known yet, is waited for: `echo hi` polled at once gives its output.
YOUNG_SECONDS, FIRST_WAIT_SECONDS = 1.0, 0.5
HEARTBEAT_SECONDS = 10
# The server's word for "too often", which is not "busy": it says when to try again.
TOO_OFTEN = "RATE_LIMITED"

Answer = dict[str, Any]


@dataclass
class Modes:
    """The modes, each a method that answers for the caller who is named in the path."""

    upstream: Upstream
    streams: Streams
    seen: Seen
    credentials: Credentials

    def blueprint(self) -> Blueprint:
        modes = Blueprint("modes", __name__, url_prefix="/api")
        methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
        modes.add_url_rule("/<mode>/<uuid>", "mode", self.dispatch, methods=methods)
        return modes

    def dispatch(self, mode: str, uuid: str) -> ResponseReturnValue:
        table: dict[str, tuple[tuple[str, ...], Callable[[str], ResponseReturnValue]]] = {
            "exec": (("POST",), self.exec),
            "poll": (("GET", "POST"), self.poll),
            "echo": (("POST",), self.echo),
            "follow": (("GET",), self.follow),
            "cancel": (("POST",), self.cancel),
        }
        if mode not in table:
            raise Problem(404, f"there is no mode {mode[:64]!r}; the modes are {', '.join(table)}")
        methods, answer = table[mode]
        if request.method not in methods:
            allowed = " or ".join(methods)
            raise Problem(405, f"{mode} is asked with {allowed}", headers={"Allow": ", ".join(methods)})
        credential.set(self.credentials.in_path(uuid))
        return answer(uuid)

    def exec(self, _: str) -> Answer:
        wanted = exec_request(body.read_object(BODY_BYTES), exec_id_for(credential.get()), GROUP)
        try:
            execution = self.upstream.exec(wanted).execution
        except (BusyError, ResourceExhaustedError) as error:
            if error.reason == TOO_OFTEN:
                raise
            # One's own command runs, or as many as may: later it can be tried.
            return {"mode": "exec", "status": "busy"}
        note_execution(execution.exec_id, execution.caller)
        return {"mode": "exec", "status": "accepted", "exec_id": execution.exec_id}

    def poll(self, _: str) -> Answer:
        if request.method == "POST":
            body.read(BODY_BYTES)  # there is nothing in it for us, but what is sent must be JSON
        try:
            return self._poll()
        except NotFoundError:  # before any exec, or what there was is deleted or expired
            return {"mode": "poll", "status": "finished"}

    def echo(self, name: str) -> Answer:
        value = body.read(BODY_BYTES)
        caller = self.upstream.info().caller
        _log.info("echo from %s: %.1000r", caller, value)
        return {"mode": "echo", "status": "ok", "user": caller, "uuid": name}

    def follow(self, _: str) -> ResponseReturnValue:
        execution = self._newest()
        if execution is None:
            raise Problem(404, "there is no command to follow; start one with exec")
        wanted = api.FollowRequest(exec_id=execution.exec_id, offset=start_offset(), text=True)
        wanted.heartbeat_interval.FromSeconds(HEARTBEAT_SECONDS)
        return self.streams.respond(self.upstream.follow(wanted), _Events())

    def cancel(self, _: str) -> Answer:
        body.read_object(BODY_BYTES)
        execution = self._newest()
        if execution is None or is_ended(execution):
            return {"mode": "cancel", "status": "finished"}
        self.upstream.cancel(api.CancelRequest(exec_id=execution.exec_id))
        return {"mode": "cancel", "status": "cancelled", "exec_id": execution.exec_id}

    def _newest(self) -> Execution | None:
        try:
            execution = self.upstream.get(api.GetRequest(exclusive_group=GROUP))
        except NotFoundError:
            return None
        note_execution(execution.exec_id, execution.caller)
        return execution

    def _poll(self) -> Answer:
        reply = self.upstream.poll(api.PollRequest(exclusive_group=GROUP, max_bytes=POLL_BYTES))
        exec_id = reply.execution.exec_id
        note_execution(exec_id, reply.execution.caller)
        key = (reply.execution.caller, exec_id)
        seen = self.seen.get(key)
        if seen is None and _is_young(reply.execution):
            self._await_first_output(exec_id)
            reply = self._poll_again(exec_id)
        if is_ended(reply.execution) and not reply.eof:  # it ended while the answer was made: now it stands still
            reply = self._poll_again(exec_id)
        found = news(reply, seen, self.upstream.tail_lines(), ended=is_ended(reply.execution))
        self.seen.put(key, found.mark)
        return {"mode": "poll", **_state(reply.execution), **_output(found), "exec_id": exec_id}

    def _poll_again(self, exec_id: str) -> api.PollResponse:
        return self.upstream.poll(api.PollRequest(exec_id=exec_id, max_bytes=POLL_BYTES))

    def _await_first_output(self, exec_id: str) -> None:
        wait = Duration()
        wait.FromNanoseconds(int(FIRST_WAIT_SECONDS * 1e9))
        self.upstream.poll(api.PollRequest(exec_id=exec_id, offset=0, max_bytes=1, wait=wait))


def _is_young(execution: Execution) -> bool:
    age = time.time() - execution.create_time.ToNanoseconds() / 1e9
    return not is_ended(execution) and not execution.log_end_offset and 0 <= age < YOUNG_SECONDS


def _output(found: News) -> Answer:
    answer: Answer = {"output": "\n".join(found.lines)}
    if found.omitted:
        answer["omitted_bytes"] = found.omitted
    return answer | _missing(found.missing)


def _missing(size: int) -> Answer:
    """Say how many bytes are no longer kept; where none is missing, nothing."""
    return {"missing_bytes": size} if size else {}


def _state(execution: Execution) -> Answer:
    """Return running, and its reason to wait; or finished, with an exit code or signal that was seen, or an error."""
    if not is_ended(execution):
        return {"status": "running", **_waiting(execution)}
    answer: Answer = {"status": "finished", "reason": reason_name(execution)}
    if not execution.output_complete and execution.reason != Reason.REASON_START_FAILED:
        answer["output_complete"] = False
    match execution.WhichOneof("exit_status"):
        case "exit_code":
            return answer | {"exit_code": execution.exit_code}
        case "signal":
            return answer | {"signal": execution.signal}
    return answer | {"error": execution.start_error.message or "what became of the command cannot be known"}


def _waiting(execution: Execution) -> Answer:
    if not execution.waiting:
        return {}
    return {"waiting": waiting_name(execution), "waiting_message": execution.waiting_message}


def _chunks(output: api.Output) -> list[Answer]:
    """Runs of one channel: how output was cut on its way says nothing."""
    return [
        {"channel": Channel.Name(channel).removeprefix("CHANNEL_").lower(), "text": "".join(c.text for c in run)}
        for channel, run in itertools.groupby(output.chunks, key=lambda chunk: chunk.channel)
    ]


class _Events:
    """One stream's messages as events, with a count of what it could not give."""

    def __init__(self) -> None:
        self._gaps = Gaps()

    def __call__(self, message: api.FollowResponse) -> tuple[str, Answer]:
        name = message.WhichOneof("event") or ""
        return name, {"mode": "follow", **_told(message), **_missing(self._gaps.count(message))}


def _told(message: api.FollowResponse) -> Answer:
    match message.WhichOneof("event"):
        case "output":
            chunks = _chunks(message.output)
            return {"status": "running", "output": "".join(chunk["text"] for chunk in chunks), "chunks": chunks}
        case "gap":
            return {"status": "running"}
        case "end":
            return {**_state(message.end), "exec_id": message.end.exec_id}
    return {**_state(message.snapshot), "exec_id": message.snapshot.exec_id}
