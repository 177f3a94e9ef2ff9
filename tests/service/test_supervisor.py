"""rexec under the real Supervisor: what is killed is started again, and no execution notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from rexec_client import Client, PermissionDeniedError
from tests.gateway.http import ask
from tests.service.alice import SECONDS, begin, connect, is_whole, token
from tests.service.supervised import PROGRAMS, Supervised, runs
from tests.waiting import eventually

# Each start takes long where others work too.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def supervised() -> Iterator[Supervised]:
    """One supervisord for all of these tests; each leaves all three programs running."""
    supervised = Supervised()
    try:
        supervised.start()
        yield supervised
    finally:
        supervised.close()


@pytest.fixture
def alice(supervised: Supervised) -> Iterator[Client]:
    supervised.await_running()
    with connect(supervised.example) as client:
        yield client


def test_all_three_run_and_answer(supervised: Supervised, alice: Client) -> None:
    """As the example's README starts them: a command runs, and the gateway answers to who shows a token alone."""
    assert alice.run(["echo", "hello"]).stdout == b"hello\n"
    example = supervised.example
    known = ask(example.gateway, "GET", f"/api/poll/{token(example)}", ca=example.path("ca.pem"))
    assert (known.status, known.json["status"]) == (200, "finished")
    assert ask(example.gateway, "GET", "/api/poll/nobody", ca=example.path("ca.pem")).status == 401


def test_what_is_killed_is_started_again(supervised: Supervised, alice: Client) -> None:
    """kill -9 of each of the three: others are there soon, and a running command has not lost a byte."""
    execution = begin(alice)
    killed = supervised.await_running()
    for program in PROGRAMS:
        os.kill(killed[program], signal.SIGKILL)
    eventually(lambda: not set(killed.values()) & set(supervised.await_running().values()), SECONDS)
    is_whole(execution)


def test_supervisord_itself_may_be_restarted(supervised: Supervised, alice: Client) -> None:
    """`supervisorctl reload` stops all and starts all: the three are others, the command is the same."""
    execution = begin(alice)
    before = [psutil.Process(pid) for pid in supervised.await_running().values()]
    supervised.control("reload")
    psutil.wait_procs(before, timeout=SECONDS)
    assert not any(map(runs, before))
    assert runs(psutil.Process(execution.execution.pid))
    supervised.await_running()
    is_whole(execution)


def test_a_killed_supervisord_is_followed_by_another(supervised: Supervised, alice: Client) -> None:
    """kill -9 of supervisord leaves the three; the next one's cannot start beside them, and do when these are ended."""
    execution = begin(alice)
    orphans = supervised.await_running()
    os.kill(supervised.pid, signal.SIGKILL)
    assert alice.run(["echo", "still here"]).stdout == b"still here\n"
    for pid in orphans.values():
        os.kill(pid, signal.SIGTERM)
    supervised.start()
    assert not set(orphans.values()) & set(supervised.running().values())
    is_whole(execution)


def test_the_policy_is_read_again_on_hup(supervised: Supervised, alice: Client) -> None:
    """`supervisorctl signal HUP rexec-server`: the new rule is in force, and nothing was restarted."""
    before = supervised.await_running()
    with pytest.raises(PermissionDeniedError):
        alice.run(["printf", "new"])
    supervised.allow('[[rule]]\nname = "new"\narguments = ["/usr/bin/printf", "new"]\ncallers = ["alice"]\n')
    assert "signalled" in supervised.control("signal", "HUP", "rexec-server")
    eventually(lambda: "policy reloaded" in supervised.log("rexec-server"), SECONDS)
    assert alice.run(["printf", "new"]).stdout == b"new"
    assert supervised.running() == before


def test_the_log_is_shown_as_it_is_written(supervised: Supervised) -> None:
    """`supervisorctl tail -f rexec-server` shows what the server writes from then on."""
    supervised.await_running()
    tail = supervised.tail("rexec-server")
    assert tail.stdout is not None
    try:
        # The end of the log comes first: it is connected then.
        assert tail.stdout.readline()
        supervised.control("signal", "HUP", "rexec-server")
        shown = iter(tail.stdout.readline, "")
        assert any("audit reopened" in line for line in shown)
    finally:
        tail.terminate()
        tail.wait(SECONDS)
        tail.stdout.close()
