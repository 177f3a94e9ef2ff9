"""`/v1`: the gRPC contract in proto3 JSON, for programs. Names, defaults and rules are those of the .proto files."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from google.protobuf.duration_pb2 import Duration
from rexec.v1 import execution_service_pb2 as api

from rexec_server.gateway import body
from rexec_server.gateway.credential import Credentials
from rexec_server.gateway.gaps import Gaps, missing_in
from rexec_server.gateway.guard import note_execution
from rexec_server.gateway.messages import encode_text, from_body, from_query, to_json, wants_text
from rexec_server.gateway.problems import Problem
from rexec_server.gateway.resume import start_offset
from rexec_server.gateway.streams import Streams
from rexec_server.gateway.upstream import Upstream, credential

# As base64, what gRPC takes in one message.
BODY_BYTES = 5 * 1024 * 1024
# Bytes of output in one answer, before they become JSON, unless the request says otherwise.
OUTPUT_BYTES = 256 * 1024
HEARTBEAT_SECONDS = 10
_EXEC_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")

Json = dict[str, Any]


@dataclass
class V1:
    """The routes. Each reads a message, makes the call, and writes the answer."""

    upstream: Upstream
    streams: Streams
    credentials: Credentials

    def blueprint(self) -> Blueprint:
        v1 = Blueprint("v1", __name__, url_prefix="/v1")
        v1.before_request(self._take_credential)
        one = "/executions/<exec_id>"
        v1.add_url_rule("/info", "info", self.info)
        v1.add_url_rule("/executions", "start", self.start, methods=["POST"])
        v1.add_url_rule("/executions", "list", self.list)
        v1.add_url_rule(one, "get", self.get)
        v1.add_url_rule(one, "delete", self.delete, methods=["DELETE"])
        v1.add_url_rule(f"{one}/output", "output", self.output)
        v1.add_url_rule(f"{one}/follow", "follow", self.follow)
        v1.add_url_rule(f"{one}/acknowledge", "acknowledge", self.acknowledge, methods=["POST"])
        v1.add_url_rule(f"{one}/signal", "signal", self.signal, methods=["POST"])
        v1.add_url_rule(f"{one}/cancel", "cancel", self.cancel, methods=["POST"])
        v1.add_url_rule(f"{one}/stdin", "stdin", self.stdin, methods=["POST"])
        newest = "/newest"
        v1.add_url_rule(newest, "newest", self.get, defaults={"exec_id": ""})
        v1.add_url_rule(f"{newest}/output", "newest_output", self.output, defaults={"exec_id": ""})
        v1.add_url_rule(f"{newest}/follow", "newest_follow", self.follow, defaults={"exec_id": ""})
        return v1

    def _take_credential(self) -> None:
        """The caller's own, passed on as it is; and an id that cannot be one is no id."""
        credential.set(self.credentials.in_header())
        exec_id = (request.view_args or {}).get("exec_id")
        if exec_id and not _EXEC_ID.fullmatch(exec_id):
            raise Problem(404, "no execution can have this id")
        if exec_id == "" and not (request.args.get("exclusiveGroup") or request.args.get("exclusive_group")):
            raise Problem(400, "exclusiveGroup is missing; give the group of which the newest execution is meant")

    def info(self) -> Json:
        from_query(api.GetServerInfoRequest, {})
        return to_json(self.upstream.info())

    def start(self) -> ResponseReturnValue:
        from_query(api.GetServerInfoRequest, {}, besides=["encoding"])
        wanted = from_body(api.ExecRequest, encode_text(body.read_object(BODY_BYTES), "initial_stdin"))
        wanted.text = wanted.text or wants_text()
        with self._slot(wanted.wait):
            reply = self.upstream.exec(wanted)
        note_execution(reply.execution.exec_id, reply.execution.caller)
        missing = missing_in(reply) if wanted.HasField("wait") else 0
        return {**to_json(reply), **_missing(missing)}, 200 if reply.already_existed else 201

    def list(self) -> Json:
        wanted = from_query(api.ListRequest, {}, besides=["label"])
        for label in request.args.getlist("label"):
            name, equals, value = label.partition("=")
            if not equals:
                raise Problem(400, "a label is given as label=NAME=VALUE")
            wanted.labels[name] = value
        return to_json(self.upstream.list(wanted))

    def get(self, exec_id: str) -> Json:
        wanted = from_query(api.GetRequest, {"exec_id": exec_id})
        with self._slot(wanted.wait):
            return to_json(self.upstream.get(wanted))

    def delete(self, exec_id: str) -> Json:
        self.upstream.delete(from_query(api.DeleteRequest, {"exec_id": exec_id}))
        return {}

    def output(self, exec_id: str) -> Json:
        wanted = from_query(api.PollRequest, {"exec_id": exec_id}, besides=["encoding"])
        wanted.text = wanted.text or wants_text()
        wanted.max_bytes = wanted.max_bytes or OUTPUT_BYTES
        with self._slot(wanted.wait):
            return to_json(self.upstream.poll(wanted))

    def follow(self, exec_id: str) -> ResponseReturnValue:
        wanted = from_query(api.FollowRequest, {"exec_id": exec_id}, besides=["encoding"])
        wanted.text = wanted.text or wants_text()
        if "Last-Event-ID" in request.headers:
            wanted.offset = start_offset()
        if not wanted.HasField("heartbeat_interval"):
            wanted.heartbeat_interval.FromSeconds(HEARTBEAT_SECONDS)
        # A Follow waits for a server that is away; one who asks now is told now. And when it is resumed, the newest
        # of its group may be another one.
        asked = api.GetRequest(exec_id=exec_id, exclusive_group=wanted.exclusive_group, caller=wanted.caller)
        wanted.exec_id = self.upstream.get(asked).exec_id
        wanted.ClearField("exclusive_group")
        return self.streams.respond(self.upstream.follow(wanted), _Events())

    def signal(self, exec_id: str) -> Json:
        return to_json(self.upstream.signal(_named(api.SignalRequest, exec_id)))

    def cancel(self, exec_id: str) -> Json:
        return to_json(self.upstream.cancel(_named(api.CancelRequest, exec_id)))

    def acknowledge(self, exec_id: str) -> Json:
        return to_json(self.upstream.acknowledge(_named(api.AcknowledgeRequest, exec_id)))

    def stdin(self, exec_id: str) -> Json:
        given = encode_text(body.read_object(BODY_BYTES), "data")
        wanted = from_body(api.WriteStdinRequest, given, {"exec_id": exec_id})
        with self.streams.waiting():
            return to_json(self.upstream.write_stdin(wanted))

    def _slot(self, wait: Duration) -> AbstractContextManager[None]:
        """A call that waits holds a worker, as a stream does, and is counted as one."""
        return self.streams.waiting() if wait.ToNanoseconds() > 0 else nullcontext()


def _named(kind: Any, exec_id: str) -> Any:
    return from_body(kind, body.read_object(BODY_BYTES), {"exec_id": exec_id})


class _Events:
    """One stream's messages as events: each is named as its field in FollowResponse, and its data is that message."""

    def __init__(self) -> None:
        self._gaps = Gaps()

    def __call__(self, message: api.FollowResponse) -> tuple[str, Json]:
        name = message.WhichOneof("event") or ""
        return name, {**to_json(getattr(message, name)), **_missing(self._gaps.count(message))}


def _missing(size: int) -> Json:
    """Say how many bytes are no longer kept, beside a message that has no field for it; of none, nothing."""
    return {"missingBytes": str(size)} if size else {}
