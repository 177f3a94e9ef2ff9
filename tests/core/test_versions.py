"""Server, runner and shims may be of different versions: what they write for each other can be read all the same."""

from __future__ import annotations

import json

import pytest

from rexec_server.core.launch import Confinement, Launch, Leftovers, Limits, Overflow, StdinMode, UnknownFields
from rexec_server.core.spool import ExitRecord, Reason, StartRecord, Usage
from rexec_server.runner.supervision import Terms

PLAIN = Launch(("true",), {}, "/", 1)
FULL = Launch(
    ("true", "x"),
    {"A": "b"},
    "/tmp",
    1,
    overflow=Overflow.TERMINATE,
    stdin_mode=StdinMode.BYTES,
    initial_stdin=b"\0\xff",
    timeout=1.5,
    leftovers=Leftovers.KEEP,
    limits=Limits(cpu_seconds=3),
    confinement=Confinement(user=5, group=6, groups=(7, 8), cpus=0.5),
)


@pytest.mark.parametrize("launch", [PLAIN, FULL])
def test_a_launch_arrives_as_it_was_sent(launch: Launch) -> None:
    """Through JSON and back, with the types that it had."""
    arrived = Launch.from_json(json.loads(json.dumps(launch.to_json())))
    assert arrived == launch
    assert list(map(type, arrived)) == list(map(type, launch))


def test_a_launch_says_only_what_is_not_the_default() -> None:
    """So a newer server has everything started by an older runner but what that one does not know."""
    assert PLAIN.to_json().keys() == {"arguments", "environment", "working_directory", "output_bytes"}
    assert FULL.to_json()["limits"] == {"cpu_seconds": 3}


@pytest.mark.parametrize("place", ["", "limits", "confinement"])
def test_a_launch_with_something_unknown_is_refused(place: str) -> None:
    """A limit or a confinement of a later version must not be left out in silence."""
    fields = FULL.to_json()
    (fields[place] if place else fields)["seccomp"] = "strict"
    with pytest.raises(UnknownFields, match="seccomp"):
        Launch.from_json(fields)


def test_a_start_record_of_a_later_version_is_read() -> None:
    """It is no damaged one: who runs is told by the fields that are known."""
    terms = Terms.of(PLAIN)
    record = StartRecord(1, 2, 3, 4, "boot", 5, terms.to_json() | {"nice": 5})
    read = StartRecord.from_bytes(json.dumps(record._asdict() | {"zone": "x"}).encode())
    assert read == record
    assert Terms.from_json(read.supervision) == terms


def test_an_exit_record_of_a_later_version_is_read() -> None:
    """What it tells beside is left aside."""
    record = ExitRecord(Reason.EXITED, 1, 2, 3, output_complete=True, exit_code=4, usage=Usage(0.5, 0.25, 6))
    fields = record._asdict() | {"energy": 1, "usage": [0.5, 0.25, 6, 7]}
    assert ExitRecord.from_bytes(json.dumps(fields).encode() + b"\n") == record
