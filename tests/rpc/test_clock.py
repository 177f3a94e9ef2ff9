"""A wall clock that is wrong, or set while the server runs: what is kept for a time is kept for time that passed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.clock import WallClock
from tests.rpc.calls import START_SERVER, ended, listed, output, poll, refused, run, start
from tests.servers import Server
from tests.waiting import eventually

DAY = 86400.0
AHEAD, BEHIND = 2 * DAY, -40 * 365 * DAY


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "clock")


def pruned(server: Server) -> None:
    """Waits until the server has looked for what has expired: one that has is gone."""
    run(server, "true", exec_id="short", retention=0)
    eventually(lambda: "short" not in listed(server))


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("step", [AHEAD, BEHIND])
def test_a_clock_that_is_set(start_server: START_SERVER, clock: WallClock, step: float, restarted: bool) -> None:
    """Results that are seconds old stay, with their output, wherever the clock goes."""
    server = start_server(env=clock.environment)
    run(server, "echo", "hi", exec_id="kept")
    clock.step(step)
    if restarted:
        server.restart()
    pruned(server)
    assert poll(server, "kept").execution.exit_code == 0
    assert output(server, "kept") == b"hi\n"


@pytest.mark.parametrize("behind", ["server", "machine"])
def test_a_clock_that_was_behind(start_server: START_SERVER, clock: WallClock, behind: str) -> None:
    """A result whose end is in 1986 is not as old as that."""
    clock.step(BEHIND)
    server = start_server(env=clock.environment)
    start(server, "sh", "-c", "sleep 0.1; exit 3", exec_id="kept")
    if behind == "machine":
        ended(server, "kept")
    clock.step(0)
    assert ended(server, "kept").exit_code == 3
    pruned(server)
    assert poll(server, "kept").execution.exit_code == 3


def test_a_deleted_id_stays_used(start_server: START_SERVER, clock: WallClock) -> None:
    """The thirty days are days, too."""
    server = start_server(env=clock.environment)
    run(server, "true", exec_id="gone", retention=0)
    pruned(server)
    clock.step(40 * DAY)
    server.restart()  # it looks for all that is too old at its start
    run(server, "true", exec_id="later", retention=0)
    eventually(lambda: not listed(server))
    refused(lambda: start(server, "true", exec_id="gone"), "FAILED_PRECONDITION", "EXEC_ID_USED")


def test_the_newest_stay_whatever_the_clock_says(start_server: START_SERVER, clock: WallClock) -> None:
    """Of too many the oldest go, and those are the first to have ended, not those with the smallest end_time."""
    server = start_server("--keep-count", "2", env=clock.environment)
    run(server, "true", exec_id="first")
    clock.step(BEHIND)
    for exec_id in ("second", "third"):
        run(server, "true", exec_id=exec_id)
    eventually(lambda: listed(server) == ["third", "second"])


def test_what_the_server_was_away_for_counts(start_server: START_SERVER, clock: WallClock) -> None:
    """Time that the machine has counted while no server ran has passed, and nothing of it passes twice."""
    server = start_server(env=clock.environment)
    run(server, "true", exec_id="old", retention=1)
    run(server, "true", exec_id="kept", retention=3600)
    server.terminate()
    with sqlite3.connect(server.state_dir / "index.sqlite") as db:
        ((lived, expiry),) = db.execute("SELECT end_lived, expire_lived FROM execution WHERE exec_id = 'kept'")
    db.close()
    assert expiry - lived == 3600 * 10**9
    server.start()
    eventually(lambda: listed(server) == ["kept"])
