"""The service: each method translates, calls core, translates."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import grpc
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from rexec_server.core.command import Command, Defaults, check_duration, check_exec_id
from rexec_server.core.entry import Entry
from rexec_server.core.errors import Exhausted, InvalidRequest, NotAllowed, NotFound, OutOfRange, Unavailable
from rexec_server.core.execution import CHANNELS, Execution, Key
from rexec_server.core.executions import Bounds, Executions
from rexec_server.core.grant import Grant
from rexec_server.core.holding import Holder
from rexec_server.core.index import Query, now_ns
from rexec_server.core.log import Chunk, Reading
from rexec_server.core.slices import Steps, sliced
from rexec_server.core.spool import Channel
from rexec_server.core.text import TextChunk, TextView
from rexec_server.core.turns import Turns
from rexec_server.policy.admission import Admission
from rexec_server.policy.caller import Caller, listed_owner, owner
from rexec_server.policy.lookups import Lookups
from rexec_server.policy.recorder import Recorder
from rexec_server.rpc import convert
from rexec_server.rpc.auth import current_caller
from rexec_server.rpc.follow import Drain, Follower, Outgoing

Context = grpc.aio.ServicerContext[Any, Any]

MAX_POLL_BYTES = 1024 * 1024
# Each invalid byte becomes three as text; with the longest arguments the answer must stay below gRPC's 4 MiB.
MAX_TEXT_BYTES = MAX_POLL_BYTES // 2
MAX_LIST_BYTES = 3 * 1024 * 1024
MAX_POLL_WAIT = 60.0
HEARTBEAT_SECONDS = 15.0
DEFAULT_PAGE, MAX_PAGE = 50, 1000
# A call without a deadline may wait this long for a command to read its input.
STDIN_SECONDS = 60.0
# The answer with the details must be there before the client's own clock ends the call.
_ANSWER_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What GetServerInfo tells, besides the caller."""

    version: str
    instance_id: str
    tail_lines: int
    defaults: Defaults
    bounds: Bounds
    features: list[str]


class ExecutionServicer(api_grpc.ExecutionServiceServicer):
    """`rexec.v1.ExecutionService`; the errors of each call are in the .proto beside it."""

    def __init__(
        self,
        executions: Executions,
        admission: Admission,
        recorder: Recorder,
        facts: ServerFacts,
        drain: Drain,
        turns: Turns,
    ) -> None:
        self._executions = executions
        self._admission = admission
        self._lookups = Lookups()
        self._recorder = recorder
        self._facts = facts
        self._drain = drain
        self._turns = turns
        self._outgoing = Outgoing()

    async def Exec(self, request: api.ExecRequest, context: Context) -> api.ExecResponse:  # noqa: N802
        wait = convert.seconds(request, "wait")
        check_duration("wait", wait)
        entry, existed = await self._exec(current_caller(), request.exec_id, convert.command(request))
        await entry.caught_up()
        response = api.ExecResponse(already_existed=existed)
        if wait is not None:
            await self._until_end(entry, wait)
            ended = entry.ended
            reading = entry.log.read(0, _most(request.text), CHANNELS, entry.end_offset)
            for chunk in _chunks(entry, reading, 0, CHANNELS, request.text, ended):
                convert.put_chunk(chunk, response.chunks.add())
            response.next_offset = reading.next_offset
            response.eof = ended and reading.next_offset >= (entry.end_offset or 0)
        response.execution.CopyFrom(convert.execution(entry.snapshot()))
        return response

    async def Get(self, request: api.GetRequest, context: Context) -> api.GetResponse:  # noqa: N802
        wait = _wait(request)
        entry = await self._find(request.caller, request.exec_id, request.exclusive_group)
        if wait:
            await self._until_end(entry, wait)
            if self._drain.begun and not entry.ended:
                raise Unavailable("the server is stopping; ask again")
        return api.GetResponse(execution=convert.execution(entry.snapshot()))

    async def Poll(self, request: api.PollRequest, context: Context) -> api.PollResponse:  # noqa: N802
        wait = _wait(request)
        if request.max_bytes > MAX_POLL_BYTES:
            raise InvalidRequest("max_bytes", f"{request.max_bytes}; at most {MAX_POLL_BYTES}")
        entry = await self._find(request.caller, request.exec_id, request.exclusive_group)
        channels = convert.channels(request.channels)
        size = min(request.max_bytes or MAX_POLL_BYTES, _most(request.text))
        start = await self._start(entry, request, channels, size)
        if start is None:
            start = await sliced(entry.log.tail(self._facts.tail_lines, size, channels))
        with self._attached(entry, request):
            if wait:
                with self._executions.watched(entry):
                    await self._until(entry, wait, lambda: entry.ended or self._has_output(entry, start, channels))
        ended = entry.ended  # before reading: what is read after an end is all there is
        reading = entry.log.read(start, size, channels, entry.end_offset)
        response = api.PollResponse(
            execution=convert.execution(entry.snapshot()),
            next_offset=reading.next_offset,
            skipped_bytes=reading.skipped,
            eof=ended and reading.next_offset >= (entry.end_offset or 0),
        )
        for chunk in _chunks(entry, reading, start, channels, request.text, ended):
            convert.put_chunk(chunk, response.chunks.add())
        return response

    async def Follow(  # noqa: N802
        self, request: api.FollowRequest, context: Context
    ) -> AsyncGenerator[api.FollowResponse, None]:
        heartbeat = convert.seconds(request, "heartbeat_interval")
        if heartbeat is not None and not 1 <= heartbeat <= 60:
            raise InvalidRequest("heartbeat_interval", f"{heartbeat:g} s; it is 1 s to 60 s")
        entry = await self._find(request.caller, request.exec_id, request.exclusive_group)
        channels = convert.channels(request.channels)
        start = await self._start(entry, request, channels, None) or 0
        turn = functools.partial(self._turns.take, current_caller().name)
        attached = self._attached(entry, request)
        follower = Follower(
            entry, start, channels, heartbeat or HEARTBEAT_SECONDS, request.text, self._drain, turn, self._outgoing
        )
        del request, context  # what is held here is held by each of ten thousand
        with self._executions.attended(entry, current_caller().name), attached as holder:
            if holder and channels != CHANNELS:
                follower.on_skip = functools.partial(self._executions.holders.passed, entry, holder)
            async with contextlib.aclosing(follower.messages()) as messages:
                async for message in messages:
                    yield message
                    del message

    async def Acknowledge(  # noqa: N802
        self, request: api.AcknowledgeRequest, context: Context
    ) -> api.AcknowledgeResponse:
        entry = await self._find("", request.exec_id)
        self._executions.holders.acknowledge(entry, request.holder, request.offset, request.release)
        return api.AcknowledgeResponse(held_offset=entry.snapshot().held_offset)

    async def List(self, request: api.ListRequest, context: Context) -> api.ListResponse:  # noqa: N802
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidRequest("page_size", f"{request.page_size}; it is 0 (for {DEFAULT_PAGE}) to {MAX_PAGE}")
        query = Query(
            caller=listed_owner(current_caller(), request.caller),
            page_size=request.page_size or DEFAULT_PAGE,
            before=convert.parse_page_token(request.page_token),
            states=convert.states(request.states),
            labels=tuple(request.labels.items()),
            exclusive_group=request.exclusive_group or None,
        )
        return await sliced(_page(*await self._executions.page(query, current_caller().name)))

    async def Signal(self, request: api.SignalRequest, context: Context) -> api.SignalResponse:  # noqa: N802
        if request.scope not in api.SignalScope.values():
            raise InvalidRequest("scope", f"{request.scope} is no scope; SIGNAL_SCOPE_GROUP and _LEADER are")
        entry = await self._find(request.caller, request.exec_id)
        await self._executions.signal(entry, request.signal, request.scope != api.SIGNAL_SCOPE_LEADER)
        self._record("signalled", entry, signal=request.signal)
        return api.SignalResponse(execution=convert.execution(entry.snapshot()))

    async def Cancel(self, request: api.CancelRequest, context: Context) -> api.CancelResponse:  # noqa: N802
        entry = await self._find(request.caller, request.exec_id)
        await self._executions.cancel(entry, convert.seconds(request, "kill_grace"))
        self._record("cancelled", entry)
        return api.CancelResponse(execution=convert.execution(entry.snapshot()))

    async def WriteStdin(  # noqa: N802
        self, request: api.WriteStdinRequest, context: Context
    ) -> api.WriteStdinResponse:
        piece = convert.stdin_piece(request)
        entry = await self._find("", request.exec_id)
        remaining = context.time_remaining()
        timeout = STDIN_SECONDS if remaining is None else max(0.0, remaining - min(_ANSWER_SECONDS, remaining / 4))
        progress = await self._executions.write_stdin(entry, piece, timeout)
        return convert.stdin_progress(progress)

    async def Delete(self, request: api.DeleteRequest, context: Context) -> api.DeleteResponse:  # noqa: N802
        entry = await self._find("", request.exec_id)
        await self._executions.delete(entry)
        self._record("deleted", entry)
        return api.DeleteResponse()

    async def GetServerInfo(  # noqa: N802
        self, request: api.GetServerInfoRequest, context: Context
    ) -> api.GetServerInfoResponse:
        facts = self._facts
        response = api.GetServerInfoResponse(
            version=facts.version,
            instance_id=facts.instance_id,
            caller=current_caller().name,
            max_running=facts.bounds.max_running,
            tail_lines=facts.tail_lines,
            default_output_bytes=facts.defaults.output_bytes,
            default_retention=convert.duration(facts.defaults.retention),
            features=facts.features,
        )
        if facts.defaults.max_timeout is not None:
            response.max_timeout.CopyFrom(convert.duration(facts.defaults.max_timeout))
        return response

    async def _exec(self, caller: Caller, exec_id: str, command: Command) -> tuple[Entry, bool]:
        key = Key(caller.name, exec_id)
        if exec_id:
            check_exec_id(exec_id)
        try:
            command.check()
            grant = await self._admit(caller, command)
        except asyncio.CancelledError:
            self._record_denied(caller, exec_id, command, "the call was ended before it was decided")
            raise
        except (NotAllowed, Exhausted, Unavailable) as error:
            # It may be the retry of what was allowed before: that is to be answered, whatever is allowed by now.
            entry = None
            try:
                entry = await self._executions.repeated(key, command, caller.origin)
            finally:
                # Also when that fails, or the caller hangs up: nobody keeps a refusal out of the audit.
                if entry is None:
                    self._record_denied(caller, exec_id, command, error.message)
            if entry is None:
                raise
            return entry, True
        return await self._executions.exec(key, command, grant, caller.origin)

    async def _admit(self, caller: Caller, command: Command) -> Grant:
        if not self._admission.looks_at_files:
            return self._admission.admit(caller, command)
        return await self._lookups.run(caller.name, functools.partial(self._admission.admit, caller, command))

    def _record_denied(self, caller: Caller, exec_id: str, command: Command, reason: str) -> None:
        shown = {"arguments": list(command.arguments), "shell": command.shell}
        self._recorder.event("denied", caller, exec_id=exec_id, **shown, reason=reason)

    def _record(self, event: str, entry: Entry, **facts: object) -> None:
        self._recorder.event(event, current_caller(), owner=entry.key.caller, exec_id=entry.key.exec_id, **facts)

    async def _find(self, requested: str, exec_id: str, group: str = "") -> Entry:
        """The execution that a call means, by its id or as the newest of a group, if its caller may know of it."""
        if exec_id and group:
            raise InvalidRequest("exclusive_group", "is given beside exec_id; give one of the two")
        if not exec_id and not group:
            raise InvalidRequest("exec_id", "is empty; give the id of an execution")
        caller = owner(current_caller(), requested, NotFound(exec_id, group))
        if group:
            entry = await self._executions.newest(caller, group)
        else:
            entry = await self._executions.find(Key(caller, exec_id))
        await entry.caught_up()  # in turns with other calls; what is asked of its log after that is quick
        return entry

    def _attached(
        self, entry: Entry, request: api.PollRequest | api.FollowRequest
    ) -> AbstractContextManager[Holder | None]:
        """Attach the request's holder for the time of this block, if it names one. InvalidRequest, NotAllowed."""
        caller = current_caller()
        if request.holder and caller.read_only:
            raise NotAllowed("holder: a credential with the scope 'read' can hold nothing; leave holder empty")
        if request.holder and entry.key.caller != caller.name:
            raise NotAllowed("holder: only the caller who started an execution can hold its output; leave holder empty")
        offset = request.offset if request.WhichOneof("start") == "offset" else None
        return self._executions.holders.attached(entry, request.holder, offset)

    async def _start(
        self,
        entry: Entry,
        request: api.PollRequest | api.FollowRequest,
        channels: Collection[Channel],
        max_bytes: int | None,
    ) -> int | None:
        """The offset at which to begin; None when the request does not say."""
        limit = 2**63 - 1 if max_bytes is None else max_bytes
        match request.WhichOneof("start"):
            case "offset":
                end = entry.extent().end
                if request.offset > end:
                    raise OutOfRange("offset", request.offset, end)
                return request.offset
            case "tail_lines":
                return await sliced(entry.log.tail(request.tail_lines, limit, channels))
            case "tail_bytes":
                return await sliced(entry.log.tail(None, min(request.tail_bytes, limit), channels))
        return None

    @staticmethod
    def _has_output(entry: Entry, start: int, channels: Collection[Channel]) -> bool:
        return bool(entry.log.read(start, 1, channels, entry.end_offset).items)

    async def _until_end(self, entry: Entry, seconds: float) -> None:
        """Wait for the end, or until the command waits for a reader: then its end would never come."""
        with self._executions.watched(entry):
            await self._until(entry, seconds, lambda: entry.ended or entry.waits_for_reader)

    async def _until(self, entry: Entry, seconds: float, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds, or this long, or until the server stops."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition() and not self._drain.begun:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await entry.changed(left)


def _chunks(
    entry: Entry, reading: Reading, start: int, channels: Collection[Channel], text: bool, ended: bool
) -> Sequence[Chunk | TextChunk]:
    """Return what was read, as text if that was asked for."""
    if not text:
        return reading.chunks
    view = TextView(entry.log, start, channels)
    found = [view.chunk(chunk) for chunk in reading.chunks]
    if ended and reading.next_offset >= (entry.end_offset or 0):
        found += view.finish(reading.next_offset, now_ns())
    return found


def _wait(request: api.GetRequest | api.PollRequest) -> float:
    """Return how long an answer may wait, in seconds. InvalidRequest."""
    wait = convert.seconds(request, "wait") or 0.0
    if wait > MAX_POLL_WAIT:
        raise InvalidRequest("wait", f"{wait:g} s; at most {MAX_POLL_WAIT:g} s")
    return wait


def _most(text: bool) -> int:
    """How much output an answer has at most."""
    return MAX_TEXT_BYTES if text else MAX_POLL_BYTES


def _page(found: list[tuple[int, Execution]], more: bool) -> Steps[api.ListResponse]:
    """As many of the found as one message can carry; the rest is on the next page."""
    response, size, last = api.ListResponse(), 0, 0
    for place, value in found:
        message = convert.execution(value)
        size += message.ByteSize()
        if response.executions and size > MAX_LIST_BYTES:
            more = True
            break
        response.executions.append(message)
        last = place
        yield
    response.next_page_token = convert.page_token(last if more else None)
    return response
