"""A server that misbehaves on cue: for what a real one does only when something breaks.

Each answer is scripted as a function, one per call, so that a test reads as the sequence of events it is about.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as wire
from rexec.v1.execution_service_pb2_grpc import ExecutionServiceServicer, add_ExecutionServiceServicer_to_server

Follow = Callable[[wire.FollowRequest, grpc.ServicerContext], Iterator[wire.FollowResponse]]
Answer = Callable[[Any, grpc.ServicerContext], Any]


class FakeServer(ExecutionServiceServicer):
    """Answers each call with the next function of its script, and keeps the requests and their metadata."""

    def __init__(self, tls: grpc.ServerCredentials | None = None) -> None:
        """With `tls` it speaks TLS, for `localhost`."""
        self._tls = tls
        self.script: dict[str, deque[Answer]] = {}
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []

    def __enter__(self) -> FakeServer:
        # Failures come from the script only: a second server on this port would answer instead.
        options = [("grpc.so_reuseport", 0)]
        self._threads = ThreadPoolExecutor(8)
        self._server = grpc.server(self._threads, options=options)
        add_ExecutionServiceServicer_to_server(self, self._server)
        if self._tls is None:
            self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.target = f"localhost:{self._server.add_secure_port('127.0.0.1:0', self._tls)}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def on(self, rpc: str, *answers: Answer) -> None:
        """The next answers to `rpc`, in order; the last one stays."""
        self.script[rpc] = deque(answers)

    def sent(self, kind: type) -> list[Any]:
        """The requests of one kind, in order."""
        return [request for request in self.requests if isinstance(request, kind)]

    def _answer(self, rpc: str, request: Any, context: grpc.ServicerContext) -> Any:
        kept = type(request)()
        kept.CopyFrom(request)
        self.requests.append(kept)
        self.metadata.append(dict(context.invocation_metadata()))
        answers = self.script[rpc]
        return (answers.popleft() if len(answers) > 1 else answers[0])(request, context)

    def Exec(self, request, context):  # noqa: N802
        return self._answer("Exec", request, context)

    def Get(self, request, context):  # noqa: N802
        if "Get" not in self.script:  # as a server before Get: the client asks with Poll
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Get here")
        return self._answer("Get", request, context)

    def Acknowledge(self, request, context):  # noqa: N802
        return self._answer("Acknowledge", request, context)

    def Poll(self, request, context):  # noqa: N802
        return self._answer("Poll", request, context)

    def Follow(self, request, context):  # noqa: N802
        yield from self._answer("Follow", request, context)

    def List(self, request, context):  # noqa: N802
        return self._answer("List", request, context)

    def Signal(self, request, context):  # noqa: N802
        return self._answer("Signal", request, context)

    def Cancel(self, request, context):  # noqa: N802
        return self._answer("Cancel", request, context)

    def WriteStdin(self, request, context):  # noqa: N802
        return self._answer("WriteStdin", request, context)

    def Delete(self, request, context):  # noqa: N802
        return self._answer("Delete", request, context)

    def GetServerInfo(self, request, context):  # noqa: N802
        if "GetServerInfo" not in self.script:  # one without features
            return wire.GetServerInfoResponse()
        return self._answer("GetServerInfo", request, context)


def execution(log: bytes = b"", **fields: Any) -> pb.Execution:
    """An execution that has written `log` to stdout; running unless said otherwise."""
    fields.setdefault("exec_id", "x")
    fields.setdefault("state", pb.STATE_RUNNING)
    totals = [pb.ChannelTotal(channel=pb.CHANNEL_STDOUT, bytes_produced=len(log))]
    return pb.Execution(log_end_offset=len(log), totals=totals, **fields)


def ended(log: bytes = b"", **fields: Any) -> pb.Execution:
    """An execution that has written `log` and returned 0, unless said otherwise."""
    if not fields:
        fields = {"state": pb.STATE_SUCCEEDED, "exit_code": 0, "reason": pb.REASON_EXITED}
    return execution(log, **fields)


def chunk(offset: int, data: bytes, channel: pb.Channel.ValueType = pb.CHANNEL_STDOUT) -> pb.OutputChunk:
    return pb.OutputChunk(channel=channel, offset=offset, data=data)


def snapshot(state: pb.Execution, next_offset: int = 0) -> wire.FollowResponse:
    return wire.FollowResponse(next_offset=next_offset, snapshot=state)


def output(*chunks: pb.OutputChunk) -> wire.FollowResponse:
    return wire.FollowResponse(next_offset=chunks[-1].offset + len(chunks[-1].data), output=wire.Output(chunks=chunks))


def gap(start: int, end: int) -> wire.FollowResponse:
    return wire.FollowResponse(next_offset=end, gap=pb.Gap(start_offset=start, end_offset=end))


def end(state: pb.Execution) -> wire.FollowResponse:
    return wire.FollowResponse(next_offset=state.log_end_offset, end=state)


def follow(*responses: wire.FollowResponse, cut: grpc.StatusCode | None = None) -> Follow:
    """A Follow that sends these and then closes cleanly, or is cut with a status."""

    def answer(request: wire.FollowRequest, context: grpc.ServicerContext) -> Iterator[wire.FollowResponse]:
        yield from responses
        if cut is not None:
            context.abort(cut, "cut by the test")

    return answer


def reply(response: Any) -> Answer:
    return lambda request, context: response


def refuse(code: grpc.StatusCode, message: str = "refused by the test", *details: Any) -> Answer:
    """A failure, with rich details."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        packed = [any_pb2.Any() for _ in details]
        for box, detail in zip(packed, details, strict=True):
            box.Pack(detail)
        number = code_pb2.Code.Value(code.name)
        context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=number, message=message, details=packed)))

    return answer


class Stdin:
    """Standard input that takes what the contract says it takes: what it has already is skipped."""

    def __init__(self) -> None:
        self.received = b""
        self.open = True

    def write(self, request: wire.WriteStdinRequest, context: grpc.ServicerContext) -> wire.WriteStdinResponse:
        if not self.open:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "stdin is closed")
        if request.offset > len(self.received):
            context.abort(grpc.StatusCode.OUT_OF_RANGE, f"bytes_written is {len(self.received)}")
        self.received += request.data[len(self.received) - request.offset :]
        self.open = not request.eof
        return wire.WriteStdinResponse(stdin=self.status())

    def status(self) -> pb.StdinStatus:
        return pb.StdinStatus(bytes_written=len(self.received), open=self.open)


def counted(pieces: int) -> tuple[bytes, list[pb.OutputChunk]]:
    """A log of numbered lines, and its chunks."""
    data = [b"line %d\n" % number for number in range(pieces)]
    offsets = itertools.accumulate(map(len, data), initial=0)
    return b"".join(data), [chunk(offset, piece) for offset, piece in zip(offsets, data, strict=False)]
