"""The client against a real server."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from rexec_client import (
    AlreadyExistsError,
    AsyncClient,
    BusyError,
    Channel,
    Client,
    CommandFailedError,
    CommandNotStartedError,
    CommandTimeoutError,
    ExecIdUsedError,
    Gap,
    IncompleteOutputError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    State,
    StdinClosedError,
    WaitTimeoutError,
)
from tests.servers import Server


@pytest.fixture
def real(server: Server) -> Iterator[Client]:
    with Client(server.target, caller="alice") as client:
        yield client


def test_run_is_subprocess_run(real: Client) -> None:
    """Output apart, exit code, directory, environment, input."""
    result = real.run("cat; pwd; echo $X >&2; exit 3", shell=True, cwd="/", env={"X": "y"}, input="in\n")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"in\n/\n", b"y\n")
    merged = real.run("echo a; echo b >&2; echo c", shell=True, merge_stderr=True)
    assert (merged.stdout, merged.stderr) == (b"a\nb\nc\n", b"")


def test_exit_137_is_not_signal_9(real: Client) -> None:
    """An exit code and a signal are told apart, as the kernel tells them."""
    assert (real.run(["sh", "-c", "exit 137"]).returncode, real.run(["sh", "-c", "kill -9 $$"]).returncode) == (137, -9)


def test_failures_have_their_errors(real: Client) -> None:
    """Each way not to have a result is an error of its own."""
    with pytest.raises(CommandFailedError) as failed:
        real.run(["sh", "-c", "echo why >&2; exit 2"], check=True)
    assert (failed.value.returncode, failed.value.stderr) == (2, b"why\n")
    with pytest.raises(CommandTimeoutError) as late:
        real.run(["sh", "-c", "echo before; sleep 60"], timeout=0.2)
    assert late.value.stdout == b"before\n"
    with pytest.raises(CommandNotStartedError) as not_started:
        real.run(["/no/such/program"])
    assert not_started.value.errno == "ENOENT"
    with pytest.raises(InvalidRequestError) as invalid:
        real.run(["true"], cwd="relative")
    assert "working_directory" in invalid.value.violations


def test_random_bytes_come_back(real: Client) -> None:
    """A large input is written while the output is read: nothing blocks, nothing changes."""
    data = os.urandom(8 << 20)
    assert real.run(["cat"], input=data).stdout == data
    assert real.run(["head", "-c", "1"], input=data).stdout == data[:1]


def test_output_that_is_dropped_is_never_silent(real: Client) -> None:
    """A cap makes gaps: an error, or a part of the result that was asked for."""
    flood = {"shell": True, "max_output": 1 << 20}
    with pytest.raises(IncompleteOutputError) as caught:
        real.run("seq 1 1000000", **flood)
    assert caught.value.missing > 0
    result = real.run("seq 1 1000000", gaps=True, **flood)
    assert sum(gap.size for gap in result.gaps) + len(result.stdout) == 6888896
    assert result.stdout.endswith(b"999999\n1000000\n")


def test_an_id_runs_once(real: Client) -> None:
    """The same request is the same execution; another one is refused; a deleted id stays used."""
    first = real.start(["echo", "1"], exec_id="once")
    assert not first.already_existed
    first.wait()
    again = real.start(["echo", "1"], exec_id="once")
    assert again.already_existed
    assert again.execution.pid == first.execution.pid
    with pytest.raises(AlreadyExistsError):
        real.start(["echo", "2"], exec_id="once")
    real.delete("once")
    with pytest.raises(ExecIdUsedError):
        real.start(["echo", "1"], exec_id="once")
    with pytest.raises(NotFoundError):
        real.get("once")


def test_a_group_is_busy(real: Client) -> None:
    """BUSY has a class of its own; ending the execution frees the group."""
    handle = real.start(["sleep", "60"], exclusive_group="g")
    with pytest.raises(BusyError):
        real.start(["true"], exclusive_group="g")
    with pytest.raises(PreconditionError):
        real.delete(handle.exec_id)
    handle.cancel()
    handle.wait()
    assert real.run(["true"], exclusive_group="g").returncode == 0


def test_a_handle_is_a_popen(real: Client) -> None:
    """Write, read lines as they come, close, wait."""
    handle = real.start(["cat"], stdin=True)
    lines = handle.lines()
    handle.write("one\n")
    assert next(lines) == "one\n"
    assert handle.returncode is None
    with pytest.raises(WaitTimeoutError):
        handle.wait(timeout=0.05)
    handle.write(b"two")
    handle.close_stdin()
    assert list(lines) == ["two"]
    assert handle.wait().exit_code == handle.returncode == 0
    with pytest.raises(StdinClosedError):
        handle.write("more")


def test_signals_reach_the_command(real: Client) -> None:
    """terminate and send_signal, as on a Popen; an ended execution refuses them."""
    handle = real.start(["sleep", "60"])
    handle.terminate()
    assert handle.wait(timeout=60).signal == 15
    assert handle.returncode == -15
    with pytest.raises(PreconditionError):
        handle.kill()


def test_poll_never_consumes(real: Client) -> None:
    """The same question has the same answer; channels and tails select."""
    real.run("seq 1 9; echo e >&2", shell=True, exec_id="p")
    handle = real.attach("p")
    first = handle.poll(since=0)
    assert first == handle.poll(since=0)
    assert first.eof
    assert first.next_offset == 20
    assert b"".join(chunk.data for chunk in handle.poll(tail_lines=2, channels=[Channel.STDOUT]).chunks) == b"8\n9\n"
    with pytest.raises(OutOfRangeError):
        handle.poll(since=99)


def test_list_selects(real: Client, server: Server) -> None:
    """By state and label, over pages; another caller sees nothing of it."""
    for number in range(5):
        real.run(["true"], labels={"n": str(number % 2)})
    running = real.start(["sleep", "60"])
    assert [found.exec_id for found in real.list(states=[State.STATE_RUNNING])] == [running.exec_id]
    assert len(list(real.list(labels={"n": "0"}, page_size=2))) == 3
    with Client(server.target, caller="bob") as bob:
        assert list(bob.list()) == []
        with pytest.raises(NotFoundError):
            bob.attach(running.exec_id)
    with Client(server.target) as operator:
        assert operator.attach(running.exec_id, owner="alice").execution.caller == "alice"
        assert len(list(operator.list(owner="*"))) == 6
    running.cancel()
    running.wait()


def test_a_follower_survives_the_server(server: Server, real: Client) -> None:
    """kill -9 of the server in the middle of the output: every byte comes, and the true end."""
    numbers = "for i in $(seq 1 300); do echo $i; sleep 0.01; done; exit 5"
    handle = real.start(numbers, shell=True)
    lines = handle.lines()
    before = list(itertools.islice(lines, 20))
    server.restart()
    assert before + list(lines) == [f"{number}\n" for number in range(1, 301)]
    assert handle.wait().exit_code == 5


def test_run_survives_the_server(server: Server, real: Client) -> None:
    """Exec is asked again with the same id: the command runs once, and its result arrives."""
    results = []
    command = "echo once >> ran; touch started; while [ ! -e go ]; do sleep 0.01; done; cat ran"
    folder = server.state_dir.parent

    def run() -> None:
        results.append(real.run(command, shell=True, cwd=folder))

    runner = threading.Thread(target=run)
    runner.start()
    while not (folder / "started").exists():
        pass
    server.restart()
    (folder / "go").touch()
    runner.join(timeout=60)
    assert results[0].stdout == b"once\n"


def test_feeding_survives_the_server(server: Server, real: Client) -> None:
    """Input goes on where it was: nothing is lost, nothing is written twice."""
    handle = real.start("while read line; do echo $line; done", shell=True, stdin=True)
    for number in range(20):
        handle.write(f"{number}\n")
        if number == 10:
            server.restart()
    handle.close_stdin()
    assert [int(line) for line in handle.lines()] == list(range(20))


def test_the_async_client_does_the_same(server: Server) -> None:
    """One test through the source of the generated code: run, start, lines, write, list."""

    async def work() -> None:
        data = os.urandom(3 << 20)
        async with AsyncClient(server.target) as client:
            results = await asyncio.gather(*(client.run(["cat"], input=data) for _ in range(3)))
            assert all(result.stdout == data for result in results)
            handle = await client.start(["cat"], stdin=True)
            await handle.write("a\nb\n")
            await handle.close_stdin()
            assert [line async for line in handle.lines()] == ["a\n", "b\n"]
            assert (await handle.wait()).exit_code == 0
            assert len([found async for found in client.list()]) == 4
            sleeping = await client.start(["sleep", "60"])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sleeping.wait()
            await sleeping.cancel()
            await sleeping.wait()

    asyncio.run(work())


def test_a_slow_consumer_sees_the_gaps_it_missed(real: Client) -> None:
    """Chunks and gaps add up to the log, with nothing in between."""
    handle = real.start("seq 1 2000000", shell=True, max_output=1 << 20)
    handle.wait()
    position = 0
    for piece in handle.output(gaps=True):
        start, end = (piece.start, piece.end) if isinstance(piece, Gap) else (piece.offset, piece.end)
        assert start == position
        position = end
    assert position == handle.execution.log_end_offset
