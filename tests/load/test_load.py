"""What `make load` measures, small: every command, follower and run is counted, and nothing grows."""

from __future__ import annotations

import pytest
from rexec.v1 import execution_service_pb2 as api

from tests.load import commands, followers, soak
from tests.load.calls import CALL_SECONDS, Stub, at_once
from tests.rpc.calls import START_SERVER

COMMANDS, CALLS, FOLLOWERS, LINES, RUNS = 50, 4000, 500, 3, 120
MIB = 1024 * 1024


@pytest.mark.timeout(240)
def test_many_commands_at_once(start_server: START_SERVER) -> None:
    """All of them run at the same time, none is refused, each ends as it was told to, and nothing of them is left."""
    found = commands.measure_commands(start_server(*commands.flags(COMMANDS)), COMMANDS, polls=5)
    assert found.started == {"running": COMMANDS}
    assert found.census_meanwhile.processes - found.census_before.processes == 2 * COMMANDS
    assert found.ended == {"cancelled": COMMANDS}
    assert found.census_after.grown(found.census_before) == {}
    assert found.census_after.processes == 1


@pytest.mark.timeout(240)
def test_many_calls_in_one_moment(start_server: START_SERVER) -> None:
    """However many come before the server has looked at the first, each is answered, and none dropped at random."""
    names = [str(number) for number in range(CALLS)]
    assert at_once(start_server(), names, _info) == {"answered": CALLS}


async def _info(stub: Stub, _: str) -> str:
    await stub.GetServerInfo(api.GetServerInfoRequest(), timeout=CALL_SECONDS)
    return "answered"


@pytest.mark.timeout(240)
def test_many_followers_of_one_command(start_server: START_SERVER) -> None:
    """All of them are let in, each has each line and the end, and nothing of them is left."""
    server = start_server(*followers.flags(FOLLOWERS))
    found = followers.measure_followers(server, FOLLOWERS, polls=5, lines=LINES, idle_seconds=0)
    assert (found.attached, found.broken) == (FOLLOWERS, {})
    assert [line.count for line in found.lines] == [FOLLOWERS] * LINES
    assert found.ended == FOLLOWERS
    assert found.census_after.grown(found.census_before) == {}
    assert found.census_after.processes == 1


@pytest.mark.timeout(240)
def test_many_short_runs(start_server: START_SERVER) -> None:
    """Each ends as it must, and after them there is no process, zombie, descriptor, thread or file more than before."""
    found = soak.measure_soak(start_server(*soak.FLAGS), RUNS, warm_up=60)
    assert found.outcomes == {"as expected": RUNS}
    assert found.after.grown(found.before) == {}
    assert found.after.files == found.before.files
    assert found.memory_after.server - found.memory_before.server < 64 * MIB
    assert found.memory_after.runner - found.memory_before.runner < 16 * MIB
