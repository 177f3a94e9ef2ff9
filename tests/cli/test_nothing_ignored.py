"""Everything that is given to `rexec` is used, or refused: never silently dropped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.client.fakes import FakeServer, Stdin, chunk, end, ended, execution, follow, output, refuse, reply, wire

WITHIN = 60
# A shell in another directory finds the modules that are tested.
IMPORTS = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def ready(fake: FakeServer) -> FakeServer:
    fake.on("Exec", lambda request, context: wire.ExecResponse(execution=execution(exec_id=request.exec_id)))
    fake.on("Poll", reply(wire.PollResponse(execution=execution())))
    fake.on("Follow", follow(end(ended())))
    return fake


def rexec(fake: FakeServer, *arguments: str, **options) -> tuple[int, bytes, str]:
    """Return exit status, stdout, stderr."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    line = [sys.executable, "-m", "rexec_client", "--target", fake.target, *arguments]
    done = subprocess.run(line, capture_output=True, timeout=WITHIN, **options)
    return done.returncode, done.stdout, done.stderr.decode()


def full_pipe(data: bytes) -> tuple[int, int]:
    """Return a pipe that has these bytes, and whose writer is still there."""
    reader, writer = os.pipe()
    os.write(writer, data)
    return reader, writer


def test_input_for_exec_is_refused_and_left_there(ready: FakeServer, tmp_path: Path) -> None:
    """A pipe, a socket and a file with bytes: nothing starts, the words say what to type, and nothing was taken."""
    reader, writer = full_pipe(b"important")
    ours, theirs = socket.socketpair()
    ours.send(b"important")
    (tmp_path / "file").write_bytes(b"important")
    with open(tmp_path / "file", "rb") as file, ours, theirs:
        for stdin in (reader, theirs.fileno(), file.fileno()):
            code, out, err = rexec(ready, "exec", "--", "cat", stdin=stdin)
            assert (code, out) == (255, b"")
            assert "no input, and there is some on standard input; use `rexec run`" in err
            assert os.read(stdin, 100) == b"important"
    os.close(reader)
    os.close(writer)
    assert ready.sent(wire.ExecRequest) == []


def test_exec_starts_where_nothing_can_be_lost(ready: FakeServer, tmp_path: Path) -> None:
    """/dev/null, nothing at all, a terminal, an empty file, pipes that are silent or at their end, and -n."""
    (tmp_path / "empty").touch()
    silent, writer = os.pipe()
    ended_pipe, closed = os.pipe()
    os.close(closed)
    full, filler = full_pipe(b"the loop's")
    master, slave = os.openpty()
    with open(tmp_path / "empty", "rb") as empty:
        for stdin in (subprocess.DEVNULL, empty, silent, ended_pipe, slave):
            assert rexec(ready, "exec", "--id", "mine", "--", "x", stdin=stdin) == (0, b"mine\n", "")
        assert rexec(ready, "exec", "-n", "--id", "mine", "--", "x", stdin=full) == (0, b"mine\n", "")
    assert os.read(full, 100) == b"the loop's"
    for fd in (silent, writer, ended_pipe, full, filler, master, slave):
        os.close(fd)


@pytest.mark.parametrize("source", ["done < names", "done"], ids=["a file", "a pipe"])
def test_exec_in_a_loop_takes_nothing_from_it(ready: FakeServer, tmp_path: Path, source: str) -> None:
    """`while read`: the rest of the list is the loop's, and each line starts a command."""
    (tmp_path / "names").write_text("a\nb\nc\n")
    line = f"{sys.executable} -m rexec_client --target {ready.target} exec --id $name -- x"
    script = f"{'' if '<' in source else 'cat names | '}while read -r name; do {line}; {source}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, timeout=WITHIN, env=IMPORTS)
    # The fake server answers with the id that it is asked for.
    assert (done.stdout, done.stderr) == (b"a\nb\nc\n", b"")


def test_exec_in_a_script_that_comes_through_a_pipe(ready: FakeServer) -> None:
    """`ssh host sh -s < script`: the rest of the script is not input for a command in it."""
    line = f"{sys.executable} -m rexec_client --target {ready.target} exec --id mine -- x"
    done = subprocess.run(
        ["sh", "-s"], input=f"{line}\necho next\n".encode(), capture_output=True, timeout=WITHIN, env=IMPORTS
    )
    assert (done.stdout, done.stderr) == (b"mine\nnext\n", b"")


def test_a_replay_says_so(ready: FakeServer) -> None:
    """The second `run` of an id shows the output again, and says that nothing was run; a made up id says nothing."""
    again = wire.ExecResponse(execution=ended(exec_id="same", exit_code=0, state=3), already_existed=True)
    ready.on("Exec", reply(again))
    ready.on("Follow", follow(output(chunk(0, b"old\n")), end(ended(b"old\n"))))
    code, out, err = rexec(ready, "run", "--id", "same", "--", "cat")
    assert (code, out, err) == (0, b"old\n", "rexec: same already ran; replaying its output\n")
    assert rexec(ready, "run", "--", "cat") == (0, b"old\n", "")
    assert "same was started before: nothing was started now" in rexec(ready, "exec", "--id", "same", "--", "cat")[2]


def test_new_input_for_a_replay_is_refused(ready: FakeServer) -> None:
    """It would be dropped: the command had its input then. An empty pipe, and -n, have nothing to be dropped."""
    again = wire.ExecResponse(execution=ended(exec_id="same", exit_code=0, state=3), already_existed=True)
    ready.on("Exec", reply(again))
    code, out, err = rexec(ready, "run", "--id", "same", "--", "cat", input=b"new\n")
    assert (code, out) == (255, b"")
    assert "same was started before, and takes no new input" in err
    assert ready.sent(wire.WriteStdinRequest) == []
    assert rexec(ready, "run", "--id", "same", "--", "cat", input=b"")[0] == 0
    assert rexec(ready, "run", "-n", "--id", "same", "--", "cat", input=b"new\n")[0] == 0


def test_a_lost_answer_is_no_replay(ready: FakeServer) -> None:
    """The command that existed already is the one that was just started: it gets its input, and nothing is said."""
    stdin = Stdin()
    started = wire.ExecResponse(execution=execution(exec_id="x", stdin=stdin.status()), already_existed=True)
    ready.on("Exec", refuse(StatusCode.CANCELLED), reply(started))
    ready.on("WriteStdin", stdin.write)

    def echo(request, context):
        while stdin.open and context.is_active():
            threading.Event().wait(0.01)
        yield output(chunk(0, stdin.received))
        yield end(ended(stdin.received))

    ready.on("Follow", echo)
    code, out, err = rexec(ready, "run", "--id", "x", "--", "cat", input=b"new\n")
    assert (code, out) == (0, b"new\n")
    assert "replaying" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--id", "", "--", "x"],
        ["exec", "--id", "", "--", "x"],
        ["run", "--group", "", "--", "x"],
        ["run", "--cwd", "", "--", "x"],
        ["run", "--shell", ""],
        ["run", "--label", "", "--", "x"],
        ["run", "--env", "", "--", "x"],
        ["run", "--max-output", "0", "--", "x"],
        ["list", "--group", ""],
        ["poll", "x", "--owner", ""],
        ["cancel", "x", "--owner", ""],
        ["--caller", "", "info"],
        ["--target", "", "info"],
        ["--ca", "", "info"],
        ["follow", "x", "--since", "1", "--tail", "1"],
        ["follow", "x", "--since", "99999999999999999999"],
        ["poll", "x", "--tail", "-1"],
        ["poll", "x", "--tail", "4294967296"],
        ["info", "--owner", "bob"],
    ],
    ids=" ".join,
)
def test_an_empty_or_useless_option_is_an_error(ready: FakeServer, arguments: list[str]) -> None:
    """An empty word is mostly a variable that is not set: taken for none, the call would mean something else."""
    code, out, err = rexec(ready, *arguments)
    assert (code, out, err.count("\n")) == (255, b"", 1)
    assert ready.requests == []


@pytest.mark.parametrize("name", ["TARGET", "CALLER", "KEY_FILE", "AUDIENCE", "CA", "CERT", "KEY"])
def test_an_empty_variable_is_an_error(ready: FakeServer, name: str) -> None:
    """`REXEC_TARGET=$HOST` with no HOST must not run the command here. An option beside it counts."""
    code, _, err = rexec(ready, "info", env=os.environ | {f"REXEC_{name}": ""})
    if name == "TARGET":
        assert code == 0  # --target is given
        line = [sys.executable, "-m", "rexec_client", "info"]
        done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"REXEC_TARGET": ""})
        code, err = done.returncode, done.stderr
    assert code == 255
    assert f"REXEC_{name} is empty" in err


@pytest.mark.parametrize(("name", "right"), [("TARGT", "TARGET"), ("KEYFILE", "KEY_FILE"), ("CALER", "CALLER")])
def test_a_misspelt_variable_is_an_error(ready: FakeServer, name: str, right: str) -> None:
    """It was meant for `rexec`, which would go on without it; those of the server, and of others, are left alone."""
    code, out, err = rexec(ready, "info", env=os.environ | {f"REXEC_{name}": "x"})
    assert (code, out) == (255, b"")
    assert f"REXEC_{name} is not a variable of rexec; REXEC_{right} is." in err
    others = {"REXEC_CALLERS": "x", "REXEC_STATE_DIR": "x", "REXEC_GATEWAY_LISTEN": "x", "REXEC_HEARTBEAT": "1"}
    assert rexec(ready, "info", env=os.environ | others)[0] == 0


def test_a_refused_start_is_no_replay(ready: FakeServer) -> None:
    """Nothing is said of a replay where there is none."""
    ready.on("Exec", refuse(StatusCode.ALREADY_EXISTS, "another request"))
    assert rexec(ready, "run", "--id", "same", "--", "x")[2] == "rexec: another request (same)\n"
