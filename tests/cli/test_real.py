"""The command against a real server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Server
from tests.waiting import eventually

WITHIN = 60  # seconds for what takes milliseconds: a loaded machine must not fail a test


def command_line(server: Server, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rexec_client", "--target", server.target, *arguments]


def rexec(server: Server, *arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": WITHIN} | options
    if "input" in options:
        del options["stdin"]
    return subprocess.run(command_line(server, *arguments), **options)


def test_every_byte_on_its_channel_and_the_exit_code(server: Server) -> None:
    """Two million lines, a word on stderr, and 7."""
    done = rexec(server, "run", "--", "sh", "-c", "seq 1 2000000; echo err >&2; exit 7")
    local = subprocess.run(["seq", "1", "2000000"], capture_output=True).stdout
    assert (done.returncode, done.stderr) == (7, b"err\n")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(local).digest()


def test_random_bytes_round_trip(server: Server, tmp_path: Path) -> None:
    """A megabyte through a pipe, and a big file, come back as they were."""
    data = os.urandom(1 << 20)
    assert rexec(server, "run", "--", "cat", input=data).stdout == data
    big = tmp_path / "big"
    big.write_bytes(data * 20)
    with big.open("rb") as file:
        assert rexec(server, "run", "--", "cat", stdin=file).stdout == data * 20


@pytest.mark.parametrize("path", [Path("/proc/crypto"), Path("/proc/kallsyms")])
def test_files_without_a_size_are_read_to_their_end(server: Server, path: Path) -> None:
    """Those of /proc say that they are empty, and give a page at a time; the second is too large for the request."""
    if not path.exists():
        pytest.skip(f"a kernel without {path}")
    with path.open("rb") as file:
        assert rexec(server, "run", "--", "cat", stdin=file).stdout == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--", "sh", "-c", "exit 137"], 137),
        (["--shell", "kill -9 $$"], 137),
        (["--", "/no/such/program"], 127),
        (["--", "/etc/passwd"], 126),
        (["--timeout", "200ms", "--", "sleep", "60"], 143),
        (["--cwd", "relative", "--", "true"], 255),
    ],
    ids=["exit 137", "signal 9", "no program", "no permission", "timeout", "refused"],
)
def test_exit_statuses(server: Server, arguments: list[str], status: int) -> None:
    """As a shell, env and ssh have them."""
    assert rexec(server, "run", *arguments).returncode == status


def test_output_of_a_process_substitution_is_not_lost(server: Server) -> None:
    """What is written just after the command's own end still belongs to it."""
    for _ in range(5):
        assert rexec(server, "run", "--", "bash", "-c", "echo hi > >(cat)").stdout == b"hi\n"


def test_a_proxy_does_not_hijack_loopback(server: Server) -> None:
    """$http_proxy is for what is far away."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = rexec(server, "run", "--", "echo", "direct", env=os.environ | proxies)
    assert (done.returncode, done.stdout) == (0, b"direct\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_command(server: Server, number: signal.Signals) -> None:
    """The command decides what Ctrl-C means; its exit code is the answer."""
    script = f"trap 'echo caught; exit 9' {number.value}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        command_line(server, "run", "-n", "--shell", script), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "caught\n"
        assert process.wait(WITHIN) == 9


def test_a_second_signal_detaches_and_the_hint_works(server: Server) -> None:
    """What is printed for coming back brings exactly the rest of the output."""
    script = "trap 'echo no' INT; echo ready; while [ ! -e go ]; do sleep 0.05; done; echo rest"
    folder = server.state_dir.parent
    arguments = command_line(server, "run", "-n", "--cwd", str(folder), "--shell", script)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "no\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN) == 130
        hint = process.stderr.read().split("Come back: rexec ")[1].split()
    (folder / "go").touch()
    back = subprocess.run([sys.executable, "-m", "rexec_client", *hint], capture_output=True, timeout=WITHIN)
    assert (back.returncode, back.stdout) == (0, b"rest\n")


def test_a_terminal_is_forwarded_line_by_line(server: Server) -> None:
    """On a terminal it behaves as a program that runs there: lines, Ctrl-D, and no mode is changed."""
    master, slave = os.openpty()
    arguments = ["setsid", "--ctty", *command_line(server, "run", "--", "sh", "-c", "echo ready; cat; echo bye")]
    with subprocess.Popen(arguments, stdin=slave, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.write(master, b"typed\n")
        assert process.stdout.readline() == "typed\n"
        assert os.get_blocking(slave)
        os.write(master, b"\x04")
        assert process.stdout.read() == "bye\n"
        assert process.wait(WITHIN) == 0
    os.close(master)
    os.close(slave)


def test_a_run_survives_a_restart_of_the_server(server: Server) -> None:
    """The person is told that the connection was lost, and misses nothing."""
    script = "for i in $(seq 1 200); do echo $i; sleep 0.01; done; exit 4"
    arguments = command_line(server, "run", "-n", "--shell", script)
    # Unbuffered: communicate() would not see what a buffer has read beyond the first line.
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        first = process.stdout.readline()
        server.restart()
        rest, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, first + rest) == (4, b"".join(b"%d\n" % number for number in range(1, 201)))
    assert b"connection lost" in err


def test_die_with_client(server: Server) -> None:
    """A command that nobody follows any more ends; without the option it would go on."""
    arguments = command_line(server, "run", "-n", "--id", "d", "--die-with-client=1s", "--shell", "echo x; sleep 60")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "x\n"
        process.kill()
    eventually(lambda: "unattended" in rexec(server, "poll", "d", text=True).stderr, within=60)


def test_a_life_of_an_execution(server: Server) -> None:
    """exec prints the id, poll and list tell of it, signal and cancel end it, delete forgets it."""
    start = ["exec", "--label", "job=night", "--shell", "echo out; echo err >&2; exec sleep 60"]
    exec_id = rexec(server, *start, text=True).stdout.strip()
    eventually(lambda: json.loads(rexec(server, "poll", exec_id, "--json").stdout)["next_offset"] == "8")
    document = json.loads(rexec(server, "poll", exec_id, "--since", "0", "--json").stdout)
    assert document["execution"]["state"] == "STATE_RUNNING"
    assert {(chunk["channel"], chunk["text"]) for chunk in document["chunks"]} == {
        ("CHANNEL_STDOUT", "out\n"),
        ("CHANNEL_STDERR", "err\n"),
    }
    polled = rexec(server, "poll", exec_id, "--since", "0", text=True)
    assert polled.stdout == "out\n"
    assert f"{exec_id} running" in polled.stderr
    table = rexec(server, "list", "--label", "job=night", "--state", "running", text=True).stdout
    assert exec_id in table
    assert "exec sleep 60" in table
    assert "\x1b" not in table
    assert rexec(server, "delete", exec_id).returncode == 255
    assert rexec(server, "signal", exec_id, "TERM").returncode == 0
    assert rexec(server, "follow", exec_id, "--since", "8").returncode == 143
    assert rexec(server, "cancel", exec_id).returncode == 0
    listed = json.loads(rexec(server, "list", "--json").stdout)["executions"]
    assert [(found["exec_id"], found["signal"]) for found in listed] == [(exec_id, 15)]
    assert rexec(server, "delete", exec_id).returncode == 0
    gone = rexec(server, "poll", exec_id, text=True)
    assert (gone.returncode, gone.stdout) == (255, "")
    assert gone.stderr.startswith("rexec: ")


def test_follow_begins_at_a_tail(server: Server) -> None:
    """The newest lines, then whatever comes, then the command's status."""
    rexec(server, "run", "--id", "t", "--shell", "seq 1 1000; exit 2")
    done = rexec(server, "follow", "t", "--tail", "2")
    assert (done.returncode, done.stdout) == (2, b"999\n1000\n")


def test_info(server: Server) -> None:
    """For people and for programs."""
    assert "max running" in rexec(server, "info", text=True).stdout
    document = json.loads(rexec(server, "info", "--json", env=os.environ | {"REXEC_CALLER": "alice"}).stdout)
    assert document["caller"] == "alice"
