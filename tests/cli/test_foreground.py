"""`rexec run` and `follow` against a server that does exactly what a test says: signals, pipes, lost connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import StatusCode
from rexec.v1 import execution_pb2 as pb

from tests.client.fakes import (
    FakeServer,
    Stdin,
    chunk,
    counted,
    end,
    ended,
    execution,
    follow,
    gap,
    output,
    refuse,
    reply,
    snapshot,
    wire,
)

WITHIN = 60  # seconds for what takes milliseconds: a loaded machine must not fail a test

START_FAILED = pb.REASON_START_FAILED


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        server.on("Exec", lambda request, context: wire.ExecResponse(execution=execution(exec_id=request.exec_id)))
        server.on("Poll", reply(wire.PollResponse(execution=execution())))
        yield server


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """A test that fails must not leave its command behind."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def start(fake: FakeServer, *arguments: str, redirect: str = "", **options) -> subprocess.Popen:
    """The command, with pipes, and with a shell's redirection."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "rexec_client", "--target", fake.target, *arguments]
    if redirect:  # by a real shell: preexec_fn would fork beside live gRPC threads
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
    STARTED.append(subprocess.Popen(command, **streams))
    return STARTED[-1]


def rexec(fake: FakeServer, *arguments: str, **options) -> tuple[int, bytes, str]:
    """Exit status, stdout, stderr."""
    process = start(fake, *arguments, **options)
    out, err = process.communicate(timeout=WITHIN)
    return process.returncode, out, err.decode()


class Held:
    """A Follow that shows `first` and then stays until it is told how the execution ended."""

    def __init__(self, fake: FakeServer, first: bytes = b"ready\n") -> None:
        self._first = first
        self._end: pb.Execution | None = None
        self._told = threading.Event()
        fake.on("Follow", self.follow)

    def follow(self, request, context):
        context.add_callback(self._told.set)
        yield snapshot(execution())
        yield output(chunk(0, self._first))
        self._told.wait()
        yield end(self._end or ended(self._first))

    def end(self, **fields) -> None:
        self._end = ended(self._first, **fields)
        self._told.set()


def failed(**fields) -> pb.Execution:
    return ended(state=pb.STATE_FAILED, **fields)


def test_channels_stay_apart_and_the_code_is_the_commands(fake: FakeServer) -> None:
    """stdout to stdout, stderr to stderr, as raw bytes; the status is the command's own."""
    out, err = b"\xff\x00out", b"err\n"
    log = out + err
    state = failed(exit_code=7, reason=pb.REASON_EXITED)
    state.log_end_offset = len(log)
    state.totals[0].bytes_produced = len(out)
    state.totals.add(channel=pb.CHANNEL_STDERR, bytes_produced=len(err))
    fake.on("Follow", follow(output(chunk(0, out), chunk(len(out), err, pb.CHANNEL_STDERR)), end(state)))
    assert rexec(fake, "run", "--", "whatever") == (7, out, err.decode())


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        (failed(signal=9, reason=pb.REASON_SIGNALED), 137, ""),
        (failed(exit_code=137, reason=pb.REASON_EXITED), 137, ""),
        (failed(signal=15, reason=pb.REASON_TIMED_OUT), 143, "rexec: the command was ended: timed out\n"),
        (
            failed(start_error=pb.StartError(errno="ENOENT", message="no foo"), reason=pb.REASON_START_FAILED),
            127,
            "no foo",
        ),
        (failed(start_error=pb.StartError(errno="EACCES", message="no x"), reason=START_FAILED), 126, "no x"),
        (failed(start_error=pb.StartError(errno="ENOEXEC", message="?"), reason=START_FAILED), 126, "?"),
        (ended(state=pb.STATE_LOST, reason=pb.REASON_LOST), 255, "cannot be known"),
    ],
    ids=["signal", "exit code", "timeout", "ENOENT", "EACCES", "ENOEXEC", "lost"],
)
def test_exit_statuses(fake: FakeServer, state: pb.Execution, status: int, said: str) -> None:
    """Each end has its status, and what the status does not tell is said."""
    fake.on("Follow", follow(end(state)))
    code, _, err = rexec(fake, "run", "--", "foo")
    assert code == status
    assert said in err
    assert bool(said) == bool(err)


@pytest.mark.parametrize("command", [["run", "--", "foo"], ["follow", "x"]], ids=str)
def test_output_that_is_not_whole_is_no_success(fake: FakeServer, command: list[str]) -> None:
    """For any status of the command: 255, and one last line for all gaps, with what keeps more; --gaps accepts it."""
    log, chunks = counted(10)
    state = failed(exit_code=7, reason=pb.REASON_EXITED)
    state.log_end_offset = state.totals[0].bytes_produced = len(log)
    gaps = [gap(chunks[at].offset, chunks[at + 1].offset) for at in (2, 4)]
    steps = [output(*chunks[:2]), gaps[0], output(chunks[3]), gaps[1], output(*chunks[5:]), end(state)]
    fake.on("Follow", follow(*steps))
    code, out, err = rexec(fake, *command)
    assert (code, out) == (255, b"".join(chunk.data for chunk in [*chunks[:2], chunks[3], *chunks[5:]]))
    assert err == (
        "rexec: the output is not whole: 14 bytes are no longer kept; "
        "--on-overflow wait keeps all, a larger --max-output keeps more; --gaps accepts it\n"
    )
    assert rexec(fake, command[0], "--gaps", *command[1:]) == (7, out, "")


def failed_after(log: bytes) -> pb.Execution:
    return ended(log, state=pb.STATE_FAILED, signal=9, reason=pb.REASON_SIGNALED)


@pytest.mark.parametrize("command", [["run", "--json", "--", "foo"], ["follow", "x", "--json"]], ids=str)
def test_json_has_the_commands_own_code(fake: FakeServer, command: list[str]) -> None:
    """An object a line, and the last one tells the end apart from what is missing."""
    log, chunks = counted(3)
    fake.on("Follow", follow(gap(0, chunks[1].offset), output(*chunks[1:]), end(ended(log))))
    code, out, err = rexec(fake, *command)
    first, *middle, last = map(json.loads, out.splitlines())
    assert first == {"gap": {"start_offset": "0", "end_offset": "7"}}
    assert middle[0] == {"channel": "CHANNEL_STDOUT", "offset": "7", "text": "line 1\n"}
    assert (last["exit_code"], last["signal"], last["missing_bytes"]) == (0, None, 7)
    assert last["execution"]["state"] == "STATE_SUCCEEDED"
    assert (code, err.count("\n")) == (255, 1)
    fake.on("Follow", follow(output(*chunks), end(failed_after(log))))
    code, out, err = rexec(fake, *command)
    last = json.loads(out.splitlines()[-1])
    assert (last["exit_code"], last["signal"], last["missing_bytes"], code, err) == (None, 9, 0, 137, "")


def test_a_poll_says_that_there_is_more(fake: FakeServer) -> None:
    """One answer has room for a mebibyte: it does not look like all of the output."""
    state = execution(b"x" * 100)
    fake.on("Poll", reply(wire.PollResponse(execution=state, chunks=[chunk(0, b"x" * 60)], next_offset=60)))
    assert rexec(fake, "poll", "x", "--since", "0")[2].endswith("next offset 60, and 40 bytes more from there\n")
    fake.on("Poll", reply(wire.PollResponse(execution=state, chunks=[chunk(60, b"x" * 40)], next_offset=100)))
    assert rexec(fake, "poll", "x", "--since", "60")[2].endswith("next offset 100\n")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_a_poll_that_is_not_whole_is_no_success(fake: FakeServer, options: list[str]) -> None:
    """Output that was asked for and is no longer kept is told last, unless it is accepted."""
    state = wire.PollResponse(execution=execution(b"abc"), chunks=[chunk(2, b"c")], next_offset=3, skipped_bytes=2)
    fake.on("Poll", reply(state))
    code, out, err = rexec(fake, "poll", "x", "--since", "0", *options)
    assert code == 255
    assert err.splitlines()[-1].startswith("rexec: the output is not whole: 2 bytes")
    assert rexec(fake, "poll", "x", "--since", "0", "--gaps", *options)[:2] == (0, out)


def test_a_lost_connection_is_told_and_resumed(fake: FakeServer) -> None:
    """The person learns that something happened, and loses nothing."""
    log, chunks = counted(10)
    fake.on(
        "Follow",
        follow(output(*chunks[:5]), cut=StatusCode.UNAVAILABLE),
        follow(output(*chunks[5:]), end(ended(log))),
    )
    code, out, err = rexec(fake, "run", "--", "foo")
    assert (code, out) == (0, log)
    assert "connection lost" in err
    assert "resumed" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_goes_to_the_command(fake: FakeServer, number: signal.Signals) -> None:
    """Ctrl-C is for the command; the status is then how it ended."""
    held = Held(fake)

    def deliver(request, context):
        held.end(state=pb.STATE_FAILED, signal=request.signal, reason=pb.REASON_CANCELLED)
        return wire.SignalResponse(execution=execution())

    fake.on("Signal", deliver)
    process = start(fake, "run", "--", "sleep", "60")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, err) == (128 + number, b"")
    assert [request.signal for request in fake.sent(wire.SignalRequest)] == [number]


def test_a_second_signal_detaches_and_says_how_to_come_back(fake: FakeServer) -> None:
    """A command that ignores Ctrl-C does not hold its caller; nothing ends it."""
    Held(fake)
    delivered = threading.Event()

    def ignored(request, context):
        delivered.set()
        return wire.SignalResponse(execution=execution())

    fake.on("Signal", ignored)
    process = start(fake, "run", "--id", "mine", "--", "stubborn")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert delivered.wait(WITHIN)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 128 + signal.SIGINT
    assert f"rexec --target={fake.target} follow mine --since 6" in err.decode()
    assert len(fake.sent(wire.SignalRequest)) == 1


def test_leaving_before_the_answer_says_what_is_known(fake: FakeServer) -> None:
    """Interrupted while Exec is under way: the command may run, and its id is told."""
    asked, gone = threading.Event(), threading.Event()

    def hang(request, context):
        context.add_callback(gone.set)
        asked.set()
        gone.wait()
        return wire.ExecResponse()

    fake.on("Exec", hang)
    process = start(fake, "run", "--id", "mine", "--", "foo")
    assert asked.wait(WITHIN)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 128 + signal.SIGINT
    assert "it may run" in err.decode()
    assert "poll mine" in err.decode()
    assert "Traceback" not in err.decode()


def test_leaving_a_follow_touches_nothing(fake: FakeServer) -> None:
    """Whoever only looks on sends no signal."""
    Held(fake)
    process = start(fake, "follow", "x")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 128 + signal.SIGINT
    assert "follow x --since 6" in err.decode()
    assert fake.sent(wire.SignalRequest) == []


def test_a_closed_pipe_ends_it_quietly(fake: FakeServer) -> None:
    """`rexec run … | head`: the command gets the SIGPIPE that its own pipe would have given it."""
    log, chunks = counted(100_000)
    fake.on("Signal", reply(wire.SignalResponse(execution=execution())))
    fake.on("Follow", follow(*(output(*chunks[i : i + 1000]) for i in range(0, 100_000, 1000)), end(ended(log))))
    process = start(fake, "run", "--", "yes")
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.wait(WITHIN) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
    assert [request.signal for request in fake.sent(wire.SignalRequest)] == [signal.SIGPIPE]


def test_a_full_pipe_does_not_deafen_it(fake: FakeServer) -> None:
    """While nobody reads its output it still hears Ctrl-C."""
    log, chunks = counted(100_000)
    fake.on("Signal", reply(wire.SignalResponse(execution=execution())))
    fake.on("Follow", follow(*(output(*chunks[i : i + 1000]) for i in range(0, 100_000, 1000)), end(ended(log))))
    reader, writer = os.pipe()
    process = start(fake, "run", "--", "yes", stdout=writer)
    os.close(writer)
    assert os.read(reader, 6) == b"line 0"  # and no more: the pipe fills
    process.send_signal(signal.SIGINT)
    while not fake.sent(wire.SignalRequest):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN)
    os.close(reader)
    assert process.returncode == 128 + signal.SIGINT
    assert "detached" in err.decode()


def open_stdin(fake: FakeServer) -> Stdin:
    """An execution with an open standard input, that echoes all of it at its end."""
    stdin = Stdin()
    closed = threading.Event()

    def write(request, context):
        response = stdin.write(request, context)
        if not stdin.open:
            closed.set()
        return response

    def echo(request, context):
        yield snapshot(execution())
        closed.wait()
        for offset in range(0, len(stdin.received), 65536):
            yield output(chunk(offset, stdin.received[offset : offset + 65536]))
        yield end(ended(stdin.received))

    fake.on("WriteStdin", write)
    fake.on("Follow", echo)
    return stdin


@pytest.mark.parametrize("size", [0, 10, 3 << 20], ids=["empty", "small", "large"])
def test_a_pipe_is_forwarded_to_its_end(fake: FakeServer, size: int) -> None:
    """Whatever comes through a pipe reaches the command, and so does end-of-file."""
    stdin, data = open_stdin(fake), os.urandom(size)
    process = start(fake, "run", "--", "cat", stdin=subprocess.PIPE)
    out, _ = process.communicate(data, timeout=WITHIN)
    assert (process.returncode, out, stdin.received) == (0, data, data)


def test_forwarded_input_has_a_writer_of_its_own(fake: FakeServer) -> None:
    """If the server knows writers, another's bytes cannot be taken for ours, nor ours for its."""
    stdin, data = open_stdin(fake), os.urandom(3 << 20)
    fake.on("GetServerInfo", reply(wire.GetServerInfoResponse(features=["writer"])))
    process = start(fake, "run", "--", "cat", stdin=subprocess.PIPE)
    out, _ = process.communicate(data, timeout=WITHIN)
    assert (process.returncode, out, stdin.received) == (0, data, data)
    [name] = {request.writer for request in fake.sent(wire.WriteStdinRequest)}
    assert name


def test_a_large_file_is_forwarded(fake: FakeServer, tmp_path: Path) -> None:
    """A file goes piece by piece; a small one with the request, without a call of its own."""
    stdin, data = open_stdin(fake), os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(data)
    with open(tmp_path / "large", "rb") as file:
        code, out, _ = rexec(fake, "run", "--", "cat", stdin=file)
    assert (code, out) == (0, data)
    assert len(stdin.received) == len(data)
    (tmp_path / "small").write_bytes(b"skipped, sent")
    fake.on("Follow", follow(end(ended())))
    with open(tmp_path / "small", "rb") as file:
        file.seek(len("skipped, "))
        assert rexec(fake, "run", "--", "cat", stdin=file)[0] == 0
    request = fake.sent(wire.ExecRequest)[-1]
    assert (request.stdin_mode, request.initial_stdin) == (wire.STDIN_MODE_BYTES, b"sent")


@pytest.mark.parametrize("options", [{"stdin": subprocess.DEVNULL}, {"redirect": "<&-"}], ids=str)
def test_no_input_is_end_of_file(fake: FakeServer, options: dict) -> None:
    """/dev/null, or no standard input at all: nothing is read, nothing is written."""
    fake.on("Follow", follow(end(ended())))
    assert rexec(fake, "run", "--", "cat", **options)[0] == 0
    assert fake.sent(wire.ExecRequest)[0].stdin_mode == wire.STDIN_MODE_NULL


def test_an_open_pipe_does_not_keep_it_from_ending(fake: FakeServer) -> None:
    """The command ended: whoever still holds our standard input is not waited for."""
    fake.on("Follow", follow(end(ended())))
    process = start(fake, "run", "--", "true", stdin=subprocess.PIPE)
    assert process.wait(WITHIN) == 0
    process.communicate()


def test_a_closed_stdout_is_not_given_to_a_socket(fake: FakeServer) -> None:
    """`rexec run … >&-` fails to write; it does not write into whatever got the number."""
    log, chunks = counted(3)
    fake.on("Follow", follow(output(*chunks), end(ended(log))))
    code, _, err = rexec(fake, "run", "--", "echo", redirect=">&-")
    assert code == 255
    assert "cannot be written" in err


def test_die_with_client(fake: FakeServer) -> None:
    """The option is the execution's unattended_timeout; 30 s unless said otherwise."""
    fake.on("Follow", follow(end(ended())))
    rexec(fake, "run", "--die-with-client", "--", "a")
    rexec(fake, "run", "--die-with-client=2m", "b")
    assert [request.unattended_timeout.seconds for request in fake.sent(wire.ExecRequest)] == [30, 120]


def test_options_and_the_commands_own_options(fake: FakeServer) -> None:
    """What follows the command is the command's, with or without `--`."""
    fake.on("Follow", follow(end(ended())))
    rexec(fake, "run", "--env", "A=b=c", "--label", "k=v", "--timeout", "1m30s", "ls", "--id", "-n")
    request = fake.sent(wire.ExecRequest)[0]
    assert list(request.arguments) == ["ls", "--id", "-n"]
    assert (dict(request.environment_variables), dict(request.labels)) == ({"A": "b=c"}, {"k": "v"})
    assert request.timeout.seconds == 90


def test_rexecs_own_failure_is_255(fake: FakeServer) -> None:
    """A refusal is one line that names what is wrong."""
    fake.on("Exec", refuse(StatusCode.PERMISSION_DENIED, "rule 3 forbids it"))
    code, out, err = rexec(fake, "run", "--", "rm")
    assert (code, out) == (255, b"")
    assert err.startswith("rexec: rule 3 forbids it")
