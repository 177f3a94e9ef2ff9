"""The way in: a client of one server, as one caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self, Unpack

from rexec.v1 import execution_service_pb2 as wire
from rexec.v1.execution_pb2 import Execution, State

from rexec_client._async import backend
from rexec_client._async.handle import AsyncExecutionHandle
from rexec_client._async.output import AsyncOutputStream
from rexec_client._async.rpc import AsyncRpc
from rexec_client.connection import resolve
from rexec_client.credentials import Credentials
from rexec_client.errors import AlreadyExistsError, CallError, OutputLimitError, RexecError, StdinClosedError
from rexec_client.output import Gap, OutputChunk
from rexec_client.requests import (
    INLINE_INPUT,
    ExecOptions,
    Seconds,
    exec_request,
    input_bytes,
    most_collected,
    seconds,
    waiting,
)
from rexec_client.results import Arguments, Collected, CompletedExecution, StrPath

# Seconds for which `run` lets the server wait for the end: a command shorter than that needs one call in all.
RUN_WAIT = 10.0


class AsyncClient:
    """Runs commands on a server. It keeps one connection, opened at the first call; close it when done.

        async with AsyncClient("127.0.0.1:50051") as client:
            result = await client.run(["uname", "-r"], check=True)

    A server in production asks for a proof of the caller: a key, from which each call gets a fresh token, or a
    client certificate.

        AsyncClient("build7.example.org:50051", key_file="alice.jwk", ca="authority.pem")
        AsyncClient("build7.example.org:50052", cert="alice.pem", key="alice-key.pem", ca="authority.pem")

    Losing the client, the connection or the server never touches a command. Every method may raise
    UnauthenticatedError, PermissionDeniedError, UnavailableError, DeadlineError and ResourceExhaustedError
    beside what it names itself.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        caller: str | None = None,
        key_file: StrPath | None = None,
        audience: str | None = None,
        ca: StrPath | None = None,
        cert: StrPath | None = None,
        key: StrPath | None = None,
        tls: bool | None = None,
        credentials: Credentials | None = None,
        timeout: float = 30.0,
        retry_timeout: float = 15.0,
        reconnect_timeout: float = 60.0,
    ) -> None:
        """Say where and as whom; nothing is sent yet.

        What is left out of the first seven is taken from $REXEC_TARGET, $REXEC_CALLER, $REXEC_KEY_FILE and so on.

        Args:
            target: `host:port` or `unix:PATH`; 127.0.0.1:50051 when nobody says.
            caller: one's name: to a server in --dev mode it is enough; a key file may leave it out.
            key_file: a caller's key, as `rexec-server keys new` writes it: each call gets a fresh token.
            audience: the name of the server, for its tokens; otherwise the one in the key file.
            ca: the authorities to trust, in PEM; otherwise the system's. This, `cert` or tls=True make it TLS.
            cert: a client certificate, in PEM, with `key`.
            key: the certificate's key, in PEM.
            tls: True for TLS without any of these; False for none, whatever the environment says.
            credentials: called for the metadata of each call, instead of `caller` and `key_file`.
            timeout: seconds for the answer to one call, beyond any waiting that it asks for.
            retry_timeout: seconds for which starting a command is tried again when the server does not answer.
            reconnect_timeout: seconds without progress after which a lost output stream is given up.

        Raises:
            CredentialsError: a file cannot be used, or a token would cross a network without TLS.
            TypeError: what is given contradicts itself.
        """
        connection = resolve(
            target, caller=caller, key_file=key_file, audience=audience, ca=ca, cert=cert, key=key, tls=tls,
            credentials=credentials,
        )  # fmt: skip
        self._rpc = AsyncRpc(
            connection.target, connection.credentials, tls=connection.tls, timeout=timeout, patience=retry_timeout
        )
        self._reconnect_timeout = reconnect_timeout

    @property
    def target(self) -> str:
        """Where the server is."""
        return self._rpc.target

    async def run(
        self,
        args: Arguments,
        *,
        check: bool = False,
        gaps: bool = False,
        **options: Unpack[ExecOptions],
    ) -> CompletedExecution:
        """Run a command to its end and return its result, as `subprocess.run` with its output captured.

        Breaking it off (Ctrl-C, a cancelled task) leaves the command running: give `unattended_timeout` to have it
        ended then, or an `exec_id` to come back to it.

        Args:
            args: program and arguments; with shell=True one line for /bin/sh.
            check: raise CommandFailedError unless it returns 0.
            gaps: accept a result from which output is missing, and list what in `gaps`; with `max_output` the newest
                so many bytes, unless `on_overflow` says otherwise.
            options: see ExecOptions; `timeout`, in seconds, is the command's. `max_output` is how much is collected.

        Raises:
            CommandTimeoutError, CommandNotStartedError, LostError: there is no result. Each carries the output.
            OutputLimitError: it wrote more than max_output, or 1 GiB, and was cancelled. It carries what was collected.
            IncompleteOutputError: output is missing.
            InvalidRequestError, AlreadyExistsError, ExecIdUsedError, BusyError: it was not accepted. Nor is more than
                1 MiB of `input` for an exec_id that was started before.
        """
        # A caller that accepts gaps and says how much to keep wants the newest of it.
        takes_newest = gaps and options.get("max_output")
        if options.get("on_overflow") is None and not takes_newest and await self.supports("overflow_wait"):
            options["on_overflow"] = "wait"
        waits = options.get("on_overflow") == "wait"
        request = exec_request(args, waiting(options) if waits else options)
        try:
            result = await self._run(request, args, input_bytes(options), most_collected(options))
        except RexecError as error:
            error.exec_id = request.exec_id
            raise
        result.check_ended_by_itself()
        if not gaps:
            result.check_output()
        if check:
            result.check_returncode()
        return result

    async def start(
        self, args: Arguments, *, stdin: bool = False, **options: Unpack[ExecOptions]
    ) -> AsyncExecutionHandle:
        """Start a command and return a handle at once, as `subprocess.Popen`.

        A command that the system cannot start is an execution too: its `reason` says so.

        Args:
            args: program and arguments; with shell=True one line for /bin/sh.
            stdin: keep its standard input open for `write` and `close_stdin`.
            options: see ExecOptions. `input` is at most 1 MiB here.

        Raises:
            InvalidRequestError, AlreadyExistsError, ExecIdUsedError, BusyError: it was not accepted.
        """
        data = input_bytes(options)
        if data is not None and (stdin or len(data) > INLINE_INPUT):
            raise ValueError("input= is for up to 1 MiB and a closed stdin: use stdin=True and write()")
        handle, _ = await self._exec(exec_request(args, options, open_stdin=stdin), wait=0)
        return handle

    async def attach(self, exec_id: str, *, owner: str = "") -> AsyncExecutionHandle:
        """A handle for an execution that was started before.

        Args:
            owner: whose it is, for the operator role; otherwise one's own.

        Raises:
            NotFoundError: there is none.
        """
        return self._handle(await self.get(exec_id, owner=owner), owner=owner, already_existed=True)

    async def get(self, exec_id: str, *, owner: str = "", wait: Seconds | None = None) -> Execution:
        """Return what is known of an execution.

        Args:
            owner: whose it is, for the operator role; otherwise one's own.
            wait: until it has ended or waits for a reader, or for this long (at most 60 s); otherwise answer now.

        Raises:
            NotFoundError: there is none.
        """
        return await self._rpc.get(exec_id, owner, seconds(wait))

    async def acknowledge(self, exec_id: str, offset: int, *, holder: str, release: bool = False) -> int:
        """Say how far a holder of an execution is. See `AsyncExecutionHandle.acknowledge`."""
        request = wire.AcknowledgeRequest(exec_id=exec_id, holder=holder, offset=offset, release=release)
        return (await self._rpc.call(self._rpc.stub.Acknowledge, request)).held_offset

    async def list(
        self,
        *,
        states: Collection[State.ValueType] = (),
        labels: Mapping[str, str] | None = None,
        exclusive_group: str = "",
        owner: str = "",
        page_size: int = 0,
    ) -> AsyncIterator[Execution]:
        """Executions, running and ended, newest first; pages are fetched as they are needed.

        Args:
            states: only in these, such as `State.STATE_RUNNING`.
            labels: only with all of these.
            owner: whose; "*" is everybody's, for the operator role.
            page_size: executions in one answer; 0 leaves it to the server.
        """
        request = wire.ListRequest(
            page_size=page_size, states=states, labels=labels, exclusive_group=exclusive_group, caller=owner
        )
        while True:
            page = await self._rpc.call(self._rpc.stub.List, request)
            for execution in page.executions:
                yield execution
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete(self, exec_id: str) -> None:
        """Forget the output and the record of an ended execution. Its id stays used.

        Raises:
            NotFoundError: there is none.
            PreconditionError: it is still running.
        """
        await self._rpc.call(self._rpc.stub.Delete, wire.DeleteRequest(exec_id=exec_id))

    async def info(self) -> wire.GetServerInfoResponse:
        """The server's version, limits and features, and who one is to it."""
        return await self._rpc.call(self._rpc.stub.GetServerInfo, wire.GetServerInfoRequest())

    async def supports(self, feature: str) -> bool:
        """Return True when the server has a feature, such as "overflow_wait". It is asked once per connection."""
        return feature in await self._rpc.features()

    async def aclose(self) -> None:
        """Close the connection. No command is touched."""
        await self._rpc.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(
        self, request: wire.ExecRequest, args: Arguments, data: bytes | None, most: int
    ) -> CompletedExecution:
        to_be_fed = request.stdin_mode == wire.STDIN_MODE_OPEN
        handle, reply = await self._exec(request, wait=0 if to_be_fed else _run_wait(request))
        if to_be_fed and handle.already_existed and not handle.asked_again:
            # The request does not have the input: it may be another one, or have been fed in part.
            text = "was started before, and takes no new input: attach() to it, or give the input to a new exec_id"
            raise AlreadyExistsError(f"execution {handle.exec_id!r} {text}", code="ALREADY_EXISTS")
        async with handle.output(gaps=True) as stream:
            stream.take_reply(reply)
            if data is not None and to_be_fed:
                async with backend.Background(lambda: _feed(handle, data, stream), stop=handle.abandon_stdin):
                    return await _collect(handle, stream, args, most)
            return await _collect(handle, stream, args, most)

    async def _exec(self, request: wire.ExecRequest, *, wait: float) -> tuple[AsyncExecutionHandle, wire.ExecResponse]:
        waits = request.output.overflow == wire.OVERFLOW_WAIT
        if waits and not await self.supports("overflow_wait"):
            raise CallError(
                "this server cannot make a command wait for its reader (it is older); it can drop-oldest or terminate",
                code="UNIMPLEMENTED",
            )
        if wait:
            request.wait.FromTimedelta(timedelta(seconds=wait))
        timeout = self._rpc.timeout + wait
        failures: list[CallError] = []
        reply = await self._rpc.call_until_answered(self._rpc.stub.Exec, request, timeout=timeout, failures=failures)
        handle = self._handle(reply.execution, owner="", already_existed=reply.already_existed, waits=waits)
        handle.asked_again = bool(failures)
        return handle, reply

    def _handle(
        self, execution: Execution, *, owner: str, already_existed: bool, waits: bool = False
    ) -> AsyncExecutionHandle:
        return AsyncExecutionHandle(
            self._rpc,
            execution,
            owner=owner,
            already_existed=already_existed,
            patience=self._reconnect_timeout,
            waits=waits,
        )


def _run_wait(request: wire.ExecRequest) -> float:
    """A waiting Exec is not a follower: the command must not be taken for unattended meanwhile."""
    if not request.HasField("unattended_timeout"):
        return RUN_WAIT
    return min(RUN_WAIT, request.unattended_timeout.ToTimedelta().total_seconds() / 2)


async def _collect(
    handle: AsyncExecutionHandle, stream: AsyncOutputStream[OutputChunk | Gap], args: Arguments, most: int
) -> CompletedExecution:
    """Return all the output, and the end. OutputLimitError: it exceeds `most` bytes, and the command is cancelled."""
    collected = Collected(most)
    async for piece in stream:
        if not collected.add(piece):
            failure = None
            try:
                await handle.cancel()
            except CallError as error:
                failure = error
            raise OutputLimitError(collected.completed(args, handle.execution), most, failure)
    return collected.completed(args, stream.execution)


async def _feed(handle: AsyncExecutionHandle, data: bytes, stream: AsyncOutputStream[OutputChunk | Gap]) -> None:
    """Write all of the input while the output is read: neither may wait for the other."""
    try:
        await handle.write(data)
        await handle.close_stdin()
    except CallError as error:
        if isinstance(error, StdinClosedError) and not error.command_waits:
            return  # the command ended without reading it all, as it may
        stream.abort(error)
