"""`rexec run` through a slow reader and a bad network, against real servers: exact, and in bounded space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_client import Client, OutputLimitError, State
from tests.load.slow_pipe import EXEC_ID, MIB, Place, measure_slow_pipe
from tests.production.site import Site
from tests.servers import Server
from tests.waiting import eventually

WITHIN = 60
LIMIT = 4 * MIB
# Its gRPC and Python need some 50 MB; the rest is what it may hold of the output.
MOST_MEMORY = 100 * 1000 * 1000


def command_line(server: Server, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rexec_client", "--target", server.target, *arguments]


def rexec(server: Server, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command_line(server, *arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=WITHIN
    )


def get(server: Server, exec_id: str) -> pb.Execution:
    return server.stub.Get(api.GetRequest(exec_id=exec_id)).execution


def waits(server: Server, exec_id: str) -> bool:
    with suppress(grpc.RpcError):  # not started yet, or the server is
        return get(server, exec_id).waiting == pb.WAITING_READER
    return False


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(16 * MIB))
    return path


def test_a_slow_reader_gets_all_of_it(own_server: Server, big: Path) -> None:
    """64 MiB with a limit of 4, the server killed three times, connections cut ten times: exact, in bounded space."""
    place = Place(own_server.target, (), own_server.state_dir / "spool", own_server.restart)
    pause = lambda: eventually(lambda: waits(own_server, EXEC_ID))  # noqa: E731
    found = measure_slow_pipe(place, [big] * 4, limit=LIMIT, kills=3, cuts=10, pause=pause)
    assert (found.exact, found.status) == (True, 0), found
    assert found.most_spool <= found.allowed_spool
    assert found.most_memory < MOST_MEMORY
    assert "not whole" not in found.said
    assert get(own_server, EXEC_ID).totals[0].bytes_produced == 64 * MIB


def test_the_same_over_tls(make_site: Callable[..., Site], big: Path) -> None:
    """With tokens, of which each call has a fresh one."""
    arguments = json.dumps(["/bin/cat", str(big), str(big)])
    site = make_site(rules=f'[[rule]]\nname = "big"\narguments = {arguments}\ncallers = ["alice"]\n')
    site.start()
    options = (f"--ca={site.path('ca.pem')}", f"--key-file={site.key_file('alice')}")
    place = Place(f"127.0.0.1:{site.token_port}", options, site.state_dir / "spool", site.restart)

    def is_waiting(request: api.GetRequest) -> bool:
        with suppress(grpc.RpcError):
            return site.certified("alice").Get(request).execution.waiting == pb.WAITING_READER
        return False

    def pause() -> None:
        request = api.GetRequest(exec_id=EXEC_ID)
        eventually(lambda: is_waiting(request))

    found = measure_slow_pipe(place, [big] * 2, limit=LIMIT, kills=1, cuts=3, pause=pause)
    assert (found.exact, found.status) == (True, 0), found
    assert found.most_spool <= found.allowed_spool
    assert found.most_memory < MOST_MEMORY


@pytest.fixture
def make_site(tmp_path: Path):
    sites: list[Site] = []

    def make(**settings: object) -> Site:
        sites.append(Site(tmp_path / "site", **settings))
        return sites[-1]

    yield make
    for one in sites:
        one.close()


def test_kill_9_of_run_leaves_a_command_that_waits(server: Server, big: Path) -> None:
    """It is shown, and `rexec follow` goes on where it was: nothing is lost between the two."""
    line = command_line(server, "run", "-n", "--id", "k", "--max-output", str(LIMIT), "--", "cat", str(big))
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        first = process.stdout.read(MIB)
        eventually(lambda: waits(server, "k"))
        process.kill()
    shown = rexec(server, "list").stdout.decode()
    assert "running, waits for its reader " in shown
    polled = rexec(server, "poll", "k").stderr.decode()
    assert f"{LIMIT} bytes kept, then it waits; held from offset " in polled
    held = get(server, "k").held_offset
    assert held <= len(first) + 64 * 1024
    # The reader that is gone counts for a minute: until then the next one gets what there is.
    with subprocess.Popen(command_line(server, "follow", "k"), stdout=subprocess.PIPE) as process:
        assert process.stdout.read(2 * MIB) == big.read_bytes()[held : held + 2 * MIB]
        process.kill()
    assert first == big.read_bytes()[: len(first)]


def test_a_second_signal_lets_the_command_go_on(server: Server, big: Path) -> None:
    """Released, it ends without a reader; what was not read meanwhile is told as missing by who reads on."""
    got = big.parent / "got"
    script = f"trap 'touch {got}' INT; cat {big} & while ! wait $!; do :; done"
    line = command_line(server, "run", "-n", "--id", "r", "--max-output", str(LIMIT), "--shell", script)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        eventually(lambda: waits(server, "r"))
        process.send_signal(signal.SIGINT)
        eventually(got.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN) == 130
        said = process.stderr.read().decode()
    assert "detached; it goes on. Come back: rexec " in said
    eventually(lambda: get(server, "r").state == State.STATE_SUCCEEDED)
    back = rexec(server, *said.split(f"{server.target} ")[1].split())
    assert back.returncode == 255
    assert b"the output is not whole: " in back.stderr


def test_who_only_looks_delays_nothing(server: Server, big: Path) -> None:
    """A viewer that stands still does not hold the command that another one reads."""
    line = command_line(
        server, "run", "-n", "--id", "v", "--max-output", str(LIMIT), "--shell", f"read x < {big.parent}/go; cat {big}"
    )
    os.mkfifo(big.parent / "go")
    with subprocess.Popen(line, stdout=subprocess.PIPE) as reader:
        eventually(lambda: rexec(server, "poll", "v").returncode == 0)
        with subprocess.Popen(command_line(server, "follow", "v", "--no-hold"), stdout=subprocess.PIPE) as viewer:
            eventually(lambda: get(server, "v").followers == 2)
            (big.parent / "go").write_text("go\n")
            assert reader.stdout.read() == big.read_bytes()
            assert reader.wait(WITHIN) == 0
            viewer.kill()


def test_polls_alone_can_hold(server: Server, big: Path) -> None:
    """A client without streams acknowledges by asking for what comes after."""
    with Client(server.target) as client:
        handle = client.start(["cat", str(big)], on_overflow="wait", max_output=LIMIT)
        data, result = b"", handle.poll(since=0, holder="p", wait=30)
        while not result.eof:
            data += b"".join(chunk.data for chunk in result.chunks)
            result = handle.poll(since=result.next_offset, holder="p", wait=30)
    assert data + b"".join(chunk.data for chunk in result.chunks) == big.read_bytes()


def test_run_of_the_library_collects_all_or_raises(server: Server, big: Path) -> None:
    """More than the server keeps is collected whole; more than max_output cancels the command."""
    with Client(server.target) as client:
        names = [str(big)] * 6
        assert client.run(["cat", *names]).stdout == big.read_bytes() * 6
        with pytest.raises(OutputLimitError) as caught:
            client.run(["yes"], max_output=MIB, exec_id="yes")
        assert caught.value.stdout == b"y\n" * (MIB // 2)
        handle = client.attach("yes")
        assert handle.wait().reason == pb.REASON_CANCELLED


def test_a_token_that_may_only_read_looks(make_site: Callable[..., Site]) -> None:
    """It follows a command that waits for its readers, and the command does not wait for it."""
    site = make_site()
    site.start()
    target, ca = f"127.0.0.1:{site.token_port}", site.path("ca.pem")
    with Client(target, ca=ca, key_file=site.key_file("alice")) as client:
        client.start(["/bin/echo", "hello"], exec_id="e", on_overflow="wait")
    with Client(target, ca=ca, credentials=lambda: site.bearer("alice", scope="read")) as client:
        stream = client.attach("e").output()
        assert b"".join(chunk.data for chunk in stream) == b"hello\n"
        assert stream.holder == ""
