"""Commands run once, and their results are the server's, whatever happens to the calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc import StatusCode
from rexec.v1 import execution_pb2 as pb

from rexec_client import (
    AlreadyExistsError,
    AsyncClient,
    BusyError,
    CallError,
    Client,
    CommandFailedError,
    CommandNotStartedError,
    CommandTimeoutError,
    ExecIdUsedError,
    Gap,
    IncompleteOutputError,
    InvalidRequestError,
    LostError,
    PreconditionError,
    ResourceExhaustedError,
    StdinClosedError,
    UnavailableError,
    WaitTimeoutError,
)
from tests.client.fakes import (
    FakeServer,
    Stdin,
    chunk,
    counted,
    end,
    ended,
    execution,
    follow,
    output,
    refuse,
    reply,
    snapshot,
    wire,
)

LOG, CHUNKS = counted(10)


def answer(state: pb.Execution, *chunks: pb.OutputChunk, eof: bool = True) -> wire.ExecResponse:
    next_offset = chunks[-1].offset + len(chunks[-1].data) if chunks else state.log_start_offset
    return wire.ExecResponse(execution=state, chunks=chunks, next_offset=next_offset, eof=eof)


def test_a_short_command_needs_one_call(fake: FakeServer, client: Client) -> None:
    """Exec with `wait` brings the result: nothing else is asked."""
    fake.on("Exec", reply(answer(ended(LOG), *CHUNKS)))
    result = client.run(["true"])
    assert (result.returncode, result.stdout, result.stderr) == (0, LOG, b"")
    assert [type(request) for request in fake.requests] == [wire.ExecRequest]


def test_a_longer_command_is_followed_from_where_exec_stopped(fake: FakeServer, client: Client) -> None:
    """What Exec brought is not asked for again."""
    fake.on("Exec", reply(answer(execution(), *CHUNKS[:4], eof=False)))
    fake.on("Follow", follow(snapshot(execution(), CHUNKS[4].offset), output(*CHUNKS[4:]), end(ended(LOG))))
    assert client.run(["count"]).stdout == LOG
    assert fake.sent(wire.FollowRequest)[0].offset == CHUNKS[4].offset


def test_exec_is_retried_with_the_same_id(fake: FakeServer, client: Client) -> None:
    """A lost answer never makes a second command: the repeated request is the same, to the byte."""
    lost = refuse(StatusCode.UNAVAILABLE, "the answer is lost")
    fake.on("Exec", *[lost] * 7, reply(answer(ended(LOG), *CHUNKS)))
    assert client.run(["make"]).stdout == LOG
    first, *others = fake.sent(wire.ExecRequest)
    assert first.exec_id
    assert len(others) == 7
    assert all(other == first for other in others)


@pytest.mark.parametrize("code", [StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.ABORTED])
def test_a_cut_connection_is_no_answer_to_exec(fake: FakeServer, client: Client, code: StatusCode) -> None:
    """A connection that breaks in the middle of a call ends it with one of these; the server's own errors say why."""
    fake.on("Exec", refuse(code), reply(answer(ended(LOG), *CHUNKS)))
    assert client.run(["make"]).stdout == LOG
    fake.on("Exec", refuse(code, "a defect", error_details_pb2.ErrorInfo(reason="INTERNAL", domain="rexec")))
    with pytest.raises(CallError, match="a defect"):
        client.run(["make"])


def test_exec_is_given_up_in_the_end(fake: FakeServer) -> None:
    """The error names the id, with which the command can be found if it was started after all."""
    fake.on("Exec", refuse(StatusCode.UNAVAILABLE))
    with Client(fake.target, retry_timeout=0.2) as client, pytest.raises(UnavailableError) as caught:
        client.run(["make"], exec_id="mine")
    assert caught.value.exec_id == "mine"


def test_a_signal_is_not_an_exit_code(fake: FakeServer, client: Client) -> None:
    """As in subprocess: minus the number for a signal; 137 stays 137."""
    fake.on(
        "Exec",
        reply(answer(ended(state=pb.STATE_FAILED, signal=9, reason=pb.REASON_SIGNALED))),
        reply(answer(ended(state=pb.STATE_FAILED, exit_code=137, reason=pb.REASON_EXITED))),
    )
    killed, returned = client.run(["a"]), client.run(["b"])
    assert (killed.returncode, killed.signal) == (-9, 9)
    assert (returned.returncode, returned.signal) == (137, None)


def test_check_raises_with_the_facts(fake: FakeServer, client: Client) -> None:
    """The error carries what a caller needs to explain it."""
    fake.on("Exec", reply(answer(ended(LOG, state=pb.STATE_FAILED, exit_code=7, reason=pb.REASON_EXITED), *CHUNKS)))
    with pytest.raises(CommandFailedError) as caught:
        client.run(["make", "all"], check=True)
    error = caught.value
    assert (error.cmd, error.returncode, error.signal, error.stdout) == (["make", "all"], 7, None, LOG)
    assert "returned exit code 7" in str(error)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"state": pb.STATE_FAILED, "signal": 15, "reason": pb.REASON_TIMED_OUT}, CommandTimeoutError),
        ({"state": pb.STATE_FAILED, "exit_code": 0, "reason": pb.REASON_TIMED_OUT}, CommandTimeoutError),
        ({"state": pb.STATE_LOST, "reason": pb.REASON_LOST}, LostError),
        (
            {
                "state": pb.STATE_FAILED,
                "reason": pb.REASON_START_FAILED,
                "start_error": pb.StartError(errno="ENOENT", message="no such program: foo"),
            },
            CommandNotStartedError,
        ),
    ],
    ids=["timed out", "timed out but exited", "lost", "not started"],
)
def test_no_result_is_never_returned(fake: FakeServer, client: Client, state: dict, expected: type[Exception]) -> None:
    """Even without check=True: what is not a result of the command is raised, with the output that there is."""
    fake.on("Exec", reply(answer(ended(LOG, **state), *CHUNKS)))
    with pytest.raises(expected) as caught:
        client.run(["foo"])
    assert caught.value.stdout == LOG


def test_dropped_output_is_an_error_unless_accepted(fake: FakeServer, client: Client) -> None:
    """A result from which output is missing has to be asked for."""
    state = ended(LOG)
    state.log_start_offset = CHUNKS[6].offset
    fake.on("Exec", reply(answer(state, *CHUNKS[6:])))
    with pytest.raises(IncompleteOutputError) as caught:
        client.run(["flood"])
    assert caught.value.missing == CHUNKS[6].offset
    result = client.run(["flood"], gaps=True)
    assert (result.stdout, result.gaps) == (LOG[CHUNKS[6].offset :], (Gap(0, CHUNKS[6].offset),))


def test_large_input_is_written_while_output_is_read(fake: FakeServer, client: Client) -> None:
    """Neither waits for the other; a lost answer doubles no byte; the end-of-file comes last."""
    stdin, data = Stdin(), bytes(range(256)) * 8192
    lost = lambda request, context: (stdin.write(request, context), context.abort(StatusCode.UNAVAILABLE, "lost"))  # noqa: E731
    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    fake.on("WriteStdin", stdin.write, lost, refuse(StatusCode.CANCELLED), lost, stdin.write)
    closed = threading.Event()

    def echo(request, context):
        yield snapshot(execution())
        while stdin.open and not closed.wait(0.01):
            pass
        yield output(chunk(0, stdin.received))
        yield end(ended(stdin.received))

    fake.on("Follow", echo)
    assert client.run(["cat"], input=data).stdout == data
    assert stdin.received == data


def test_a_command_that_does_not_read_its_input_may_end(fake: FakeServer, client: Client) -> None:
    """As with a pipe, what nobody reads is dropped, and no thread stays behind."""
    fake.on("Exec", reply(wire.ExecResponse(execution=execution())))
    fake.on("WriteStdin", refuse(StatusCode.FAILED_PRECONDITION, "the command has ended"))
    fake.on("Follow", follow(output(*CHUNKS), end(ended(LOG))))
    assert client.run(["true"], input=bytes(2 << 20)).stdout == LOG
    assert "rexec-background" not in {thread.name for thread in threading.enumerate()}


def test_large_input_is_not_given_to_what_was_started_before(fake: FakeServer, client: Client) -> None:
    """The id's command may have had other input, or a part of this: it gets none of it, and the caller is told."""
    fake.on("Exec", reply(wire.ExecResponse(execution=ended(LOG), already_existed=True)))
    fake.on("WriteStdin", refuse(StatusCode.FAILED_PRECONDITION, "the command has ended"))
    fake.on("Follow", follow(output(*CHUNKS), end(ended(LOG))))
    with pytest.raises(AlreadyExistsError, match="takes no new input") as caught:
        client.run(["cat"], exec_id="again", input=bytes(2 << 20))
    assert caught.value.exec_id == "again"
    assert not fake.sent(wire.WriteStdinRequest)


def test_large_input_goes_to_a_start_whose_answer_was_lost(fake: FakeServer, client: Client) -> None:
    """It is this very start that existed: it has not been fed."""
    stdin, data = Stdin(), bytes(2 << 20)
    existed = wire.ExecResponse(execution=execution(stdin=stdin.status()), already_existed=True)
    fake.on("Exec", refuse(StatusCode.UNAVAILABLE, "lost"), reply(existed))
    fake.on("WriteStdin", stdin.write)
    fake.on("Follow", follow(output(*CHUNKS), end(ended(LOG))))
    assert client.run(["cat"], input=data).stdout == LOG


def test_input_that_cannot_be_written_ends_the_run(fake: FakeServer, client: Client) -> None:
    """A command that waits for input that will never come does not hang its caller."""
    release = threading.Event()

    def silent(request, context):
        context.add_callback(release.set)
        yield snapshot(execution())
        release.wait()

    fake.on("Exec", reply(wire.ExecResponse(execution=execution())))
    fake.on("WriteStdin", refuse(StatusCode.OUT_OF_RANGE, "bytes_written is 0"))
    fake.on("Follow", silent)
    with pytest.raises(Exception, match="bytes_written is 0"):
        client.run(["cat"], input=bytes(2 << 20))


def test_a_slow_reader_is_waited_for(fake: FakeServer, client: Client) -> None:
    """DEADLINE_EXCEEDED means that the command reads slowly: the writer goes on where the server is."""
    stdin = Stdin()

    def half(request, context):
        request.data = request.data[: len(request.data) // 2]
        stdin.write(request, context)
        context.abort(StatusCode.DEADLINE_EXCEEDED, "the command does not read")

    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    fake.on("WriteStdin", half, half, stdin.write)
    fake.on("Poll", lambda request, context: wire.PollResponse(execution=execution(stdin=stdin.status())))
    handle = client.start(["cat"], stdin=True)
    handle.write("hello world")
    handle.close_stdin()
    assert (stdin.received, stdin.open) == (b"hello world", False)
    with pytest.raises(StdinClosedError):
        handle.write(b"more")


def test_small_input_goes_with_the_request(fake: FakeServer, client: Client) -> None:
    """Up to 1 MiB needs no call of its own; no input is end-of-file at once."""
    fake.on("Exec", reply(answer(ended())))
    client.run(["cat"], input="hällo")
    client.run(["cat"])
    with_input, without = fake.sent(wire.ExecRequest)
    assert (with_input.stdin_mode, with_input.initial_stdin) == (wire.STDIN_MODE_BYTES, "hällo".encode())
    assert without.stdin_mode == wire.STDIN_MODE_NULL


def test_every_option_arrives(fake: FakeServer, client: Client) -> None:
    """Each keyword is a field of the request."""
    fake.on("Exec", reply(answer(ended())))
    client.run(
        "echo $X",
        shell=True,
        exec_id="mine",
        cwd="/tmp",
        env={"X": "1"},
        merge_stderr=True,
        timeout=1.5,
        kill_grace=2,
        drain_timeout=0.1,
        unattended_timeout=4,
        keep_leftovers=True,
        max_output=100,
        on_overflow="terminate",
        limits=wire.ResourceLimits(open_files=9),
        retention=60,
        labels={"a": "b"},
        exclusive_group="g",
    )
    assert fake.requests[0] == wire.ExecRequest(
        exec_id="mine",
        shell="echo $X",
        working_directory="/tmp",
        environment_variables={"X": "1"},
        stdin_mode=wire.STDIN_MODE_NULL,
        stderr_mode=wire.STDERR_MODE_MERGED,
        timeout=Duration(seconds=1, nanos=500_000_000),
        kill_grace=Duration(seconds=2),
        drain_timeout=Duration(nanos=100_000_000),
        unattended_timeout=Duration(seconds=4),
        leftovers=wire.LEFTOVERS_KEEP,
        output=wire.OutputLimit(max_bytes=100, overflow=wire.OVERFLOW_TERMINATE),
        limits=wire.ResourceLimits(open_files=9),
        retention=Duration(seconds=60),
        labels={"a": "b"},
        exclusive_group="g",
        wait=Duration(seconds=2),  # half of the unattended_timeout: waiting is not following
    )


@pytest.mark.parametrize(("args", "options"), [("ls -l", {}), (["ls"], {"shell": True})])
def test_a_string_is_a_shell_line_and_nothing_else(client: Client, args: list[str] | str, options: dict) -> None:
    """The classic trap of subprocess is an error before anything is sent."""
    with pytest.raises(TypeError, match="shell=True"):
        client.run(args, **options)


def test_refusals_carry_their_details(fake: FakeServer, client: Client) -> None:
    """Status and reason choose the class; the rich details are its attributes."""
    busy = error_details_pb2.ErrorInfo(reason="BUSY", domain="rexec")
    used = error_details_pb2.ErrorInfo(reason="EXEC_ID_USED", domain="rexec", metadata={"exec_id": "x"})
    violation = error_details_pb2.BadRequest.FieldViolation(field="exec_id", description="starts with a dot")
    fake.on(
        "Exec",
        refuse(StatusCode.FAILED_PRECONDITION, "busy", busy),
        refuse(StatusCode.FAILED_PRECONDITION, "used", used),
        refuse(StatusCode.FAILED_PRECONDITION, "something else"),
        refuse(StatusCode.INVALID_ARGUMENT, "bad", error_details_pb2.BadRequest(field_violations=[violation])),
        refuse(StatusCode.RESOURCE_EXHAUSTED, "full", error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3))),
    )
    with pytest.raises(BusyError):
        client.start(["a"])
    with pytest.raises(ExecIdUsedError) as used_error:
        client.start(["a"])
    with pytest.raises(PreconditionError) as plain:
        client.start(["a"])
    with pytest.raises(InvalidRequestError) as invalid:
        client.start(["a"])
    with pytest.raises(ResourceExhaustedError) as full:
        client.start(["a"])
    assert used_error.value.metadata == {"exec_id": "x"}
    assert type(plain.value) is PreconditionError
    assert invalid.value.violations == {"exec_id": "starts with a dot"}
    assert "starts with a dot" in str(invalid.value)
    assert full.value.retry_after == 3


def test_wait_has_a_timeout_of_its_own(fake: FakeServer, client: Client) -> None:
    """Not waiting any longer is not the command's timeout; it is TimeoutError for those who know only that."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    fake.on("Follow", lambda request, context: (yield from follow(snapshot(execution()))(request, context)))
    with pytest.raises(WaitTimeoutError) as caught:
        client.attach("x").wait(timeout=0.2)
    assert isinstance(caught.value, TimeoutError)


def test_signal_is_never_repeated(fake: FakeServer, client: Client) -> None:
    """A signal sent twice may do twice what was meant once."""
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    fake.on("Signal", refuse(StatusCode.UNAVAILABLE))
    with pytest.raises(UnavailableError):
        client.attach("x").terminate()
    assert len(fake.sent(wire.SignalRequest)) == 1


def test_list_fetches_pages_as_they_are_needed(fake: FakeServer, client: Client) -> None:
    """The iterator goes on with next_page_token until there is none."""
    fake.on(
        "List",
        reply(wire.ListResponse(executions=[execution(exec_id="a")], next_page_token="more")),
        reply(wire.ListResponse(executions=[execution(exec_id="b")])),
    )
    assert [found.exec_id for found in client.list()] == ["a", "b"]
    assert [request.page_token for request in fake.sent(wire.ListRequest)] == ["", "more"]


def test_the_caller_is_named_on_every_call(fake: FakeServer) -> None:
    """In --dev mode the bearer credential is the caller's name."""
    fake.on("GetServerInfo", reply(wire.GetServerInfoResponse(version="1")))
    with Client(fake.target, caller="alice") as client:
        assert client.info().version == "1"
    assert fake.metadata[0]["authorization"] == "Bearer alice"


def test_credentials_are_asked_for_each_call(fake: FakeServer) -> None:
    """The seam for tokens: each call may have a fresh one."""
    fake.on("GetServerInfo", reply(wire.GetServerInfoResponse()))
    tokens = iter(["one", "two"])
    with Client(fake.target, credentials=lambda: (("authorization", f"Bearer {next(tokens)}"),)) as client:
        client.info()
        client.info()
    assert [metadata["authorization"] for metadata in fake.metadata] == ["Bearer one", "Bearer two"]


def test_async_run_feeds_input_and_collects_output(fake: FakeServer) -> None:
    """The async client does the same as the sync one, with tasks instead of threads."""
    stdin, data = Stdin(), b"0123456789" * 200_000
    fake.on("Exec", reply(wire.ExecResponse(execution=execution(stdin=stdin.status()))))
    fake.on("WriteStdin", stdin.write)

    def echo(request, context):
        while stdin.open:
            threading.Event().wait(0.01)
        yield output(chunk(0, stdin.received))
        yield end(ended(stdin.received))

    fake.on("Follow", echo)

    async def run() -> bytes:
        async with AsyncClient(fake.target) as client:
            result = await client.run(["cat"], input=data, check=True)
            # gRPC has tasks of its own here: only ours must be gone.
            assert not [task for task in asyncio.all_tasks() if "object _feed " in repr(task.get_coro())]
            return result.stdout

    assert asyncio.run(run()) == data


def test_importing_the_client_imports_no_grpc() -> None:
    """The package gives its names without gRPC until one of them is used."""
    code = (
        "import sys, rexec_client; assert 'grpc' not in sys.modules; rexec_client.Client; assert 'grpc' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
