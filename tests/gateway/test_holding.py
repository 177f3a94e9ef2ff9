"""`/v1` has all of holding: OVERFLOW_WAIT, holders that poll or follow, Acknowledge, Get. The gateway holds nothing."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gateway.alone import Alone
from tests.gateway.http import Event, Stream, ask
from tests.gateway.test_follow import data
from tests.servers import Server
from tests.waiting import eventually

RUNS = "/v1/executions"
LIMIT = 1 << 16
LINES = 100_000
WRITTEN = "".join(f"{number}\n" for number in range(1, LINES + 1)).encode()


def start(url: str, exec_id: str, line: str = f"seq 1 {LINES}", **more: Any) -> Any:
    """Starts a command that waits for its readers at a limit that is far below what it writes."""
    output = {"maxBytes": str(LIMIT), "overflow": "OVERFLOW_WAIT"}
    answer = ask(url, "POST", RUNS, {"execId": exec_id, "shell": line, "output": output, **more})
    assert answer.status == 201, answer.json
    return answer.json


def get(url: str, exec_id: str, query: str = "") -> Any:
    return ask(url, "GET", f"{RUNS}/{exec_id}{query}").json


def chunks(answer: Any) -> bytes:
    return b"".join(base64.b64decode(chunk["data"]) for chunk in answer["chunks"])


def test_who_only_polls_can_hold(url: str) -> None:
    """Each poll of a holder acknowledges what is before its offset, and no byte is lost, however small the limit."""
    start(url, "one")
    found, offset, eof = b"", 0, False
    while not eof:
        answer = ask(url, "GET", f"{RUNS}/one/output?holder=me&offset={offset}&wait=10s").json
        assert answer["skippedBytes"] == "0"
        found += chunks(answer)
        offset, eof = int(answer["nextOffset"]), answer["eof"]
    assert found == WRITTEN
    assert get(url, "one")["exitCode"] == 0


def test_who_follows_holds_what_is_not_acknowledged(url: str) -> None:
    """Output from a stream is kept until it was used up: a holder that is cut off goes on where it really was."""
    start(url, "one")
    with Stream(url, f"{RUNS}/one/follow?holder=me&offset=0") as stream:
        events = list(itertools.islice(stream, 2))
        first = data(events)
        assert first == WRITTEN[: len(first)] != b""
        assert eventually(lambda: get(url, "one", "?wait=10s")["waiting"]) == "WAITING_READER"
    assert get(url, "one")["heldOffset"] == "0"
    used = 1000
    answer = ask(url, "POST", f"{RUNS}/one/acknowledge", {"holder": "me", "offset": str(used)})
    assert answer.json == {"heldOffset": str(used)}
    assert acknowledged_to_the_end(url, used) == WRITTEN[used:]
    assert get(url, "one", "?wait=30s")["exitCode"] == 0


def acknowledged_to_the_end(url: str, offset: int) -> bytes:
    """Follows from an offset to the end, and says of each event that it was used up."""
    events: list[Event] = []
    with Stream(url, f"{RUNS}/one/follow?holder=me", {"Last-Event-ID": str(offset)}) as stream:
        for event in stream:
            events.append(event)
            ask(url, "POST", f"{RUNS}/one/acknowledge", {"holder": "me", "offset": event.id})
    assert "missingBytes" not in events[-1].data
    return data(events)


def test_the_gateway_does_not_acknowledge_what_it_has_received(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """When the server goes away the holder's stream ends, unfinished: to resume it is the holder's own to do."""
    server = start_server()
    gateway = Alone(tmp_path, server.target)
    try:
        start(gateway.url, "one")
        with Stream(gateway.url, f"{RUNS}/one/follow?holder=me&offset=0") as stream:
            events = iter(stream)
            assert [next(events).name for _ in range(2)] == ["snapshot", "output"]
            server.kill()
            server.start()
            assert next(event.name for event in events if event.name != "output") == "failure"
        found = eventually(lambda: answer if "execId" in (answer := get(gateway.url, "one")) else None)
        assert (found["heldOffset"], found["logStartOffset"]) == ("0", "0")
        assert acknowledged_to_the_end(gateway.url, 0) == WRITTEN
    finally:
        gateway.stop()


def test_get_waits_for_the_end_or_until_a_reader_is_waited_for(url: str) -> None:
    """And says why, in the same answer; a release lets the command go on, and what it drops is counted."""
    start(url, "one")
    waiting = get(url, "one", "?wait=60s")
    assert waiting["waiting"] == "WAITING_READER"
    assert waiting["overflowWaits"] is True
    assert waiting["maxOutputBytes"] == str(LIMIT)
    assert "no holder" in waiting["waitingMessage"]
    ask(url, "POST", f"{RUNS}/one/acknowledge", {"holder": "me", "release": True})
    ended = eventually(lambda: found if "exitCode" in (found := get(url, "one", "?wait=60s")) else None)
    assert (ended["exitCode"], ended["waiting"]) == (0, "WAITING_UNSPECIFIED")
    assert int(ended["logStartOffset"]) > 0


def test_a_start_that_waits_is_answered_when_the_command_waits(url: str) -> None:
    """With what there is until then, from the start and whole."""
    answer = start(url, "one", wait="60s")
    assert answer["execution"]["waiting"] == "WAITING_READER"
    assert chunks(answer) == WRITTEN[: int(answer["nextOffset"])] != b""
    assert "missingBytes" not in answer


def test_what_cannot_be_held_is_refused(url: str) -> None:
    """A holder of what drops its oldest output, an offset beyond the end, none at all: 400, with the reason."""
    ask(url, "POST", RUNS, {"execId": "drops", "shell": "sleep 1000"})
    start(url, "one", "sleep 1000")
    for method, path, body, code in (
        ("GET", f"{RUNS}/drops/output?holder=me&offset=0", None, "INVALID_ARGUMENT"),
        ("GET", f"{RUNS}/drops/follow?holder=me&offset=0", None, "INVALID_ARGUMENT"),
        ("POST", f"{RUNS}/drops/acknowledge", {"holder": "me"}, "FAILED_PRECONDITION"),
        ("POST", f"{RUNS}/one/acknowledge", {"holder": "me", "offset": 99}, "OUT_OF_RANGE"),
        ("POST", f"{RUNS}/one/acknowledge", {"holder": "me", "execId": "drops"}, "INVALID_ARGUMENT"),
        ("POST", f"{RUNS}/one/acknowledge", {"offset": 0}, "INVALID_ARGUMENT"),
        ("GET", f"{RUNS}/one?wait=61s", None, "INVALID_ARGUMENT"),
        ("GET", f"{RUNS}/one?exclusiveGroup=x", None, "INVALID_ARGUMENT"),
        ("GET", "/v1/newest", None, "INVALID_ARGUMENT"),
        ("GET", "/v1/newest?exclusiveGroup=json&execId=one", None, "INVALID_ARGUMENT"),
    ):
        answer = ask(url, method, path, body)
        assert (answer.status, answer.json["error"]["status"]) == (400, code), path
    assert ask(url, "POST", f"{RUNS}/none/acknowledge", {"holder": "me"}).status == 404


def test_the_newest_of_a_group_needs_no_id(url: str) -> None:
    """Get, Poll and Follow of it; none in the group is 404."""
    assert ask(url, "GET", "/v1/newest?exclusiveGroup=build/x").status == 404
    for exec_id in ("first", "second"):
        request = {"execId": exec_id, "shell": f"echo {exec_id}", "exclusiveGroup": "build/x", "wait": "60s"}
        ask(url, "POST", RUNS, request)
    assert ask(url, "GET", "/v1/newest?exclusiveGroup=build/x&wait=60s").json["execId"] == "second"
    polled = ask(url, "GET", "/v1/newest/output?exclusiveGroup=build/x&offset=0").json
    assert chunks(polled) == b"second\n"
    with Stream(url, "/v1/newest/follow?exclusiveGroup=build/x") as stream:
        events = list(stream)
    assert data(events) == b"second\n"
    assert events[-1].data["execId"] == "second"


def test_the_modes_hold_nothing(with_gateway: Callable[..., Server]) -> None:
    """A JSON command never waits for its caller, also where it is not polled."""
    url = with_gateway("--output-bytes", str(LIMIT)).gateway
    exec_id = ask(url, "POST", "/api/exec/me", {"cmd": f"seq 1 {LINES}"}).json["exec_id"]
    me = {"Authorization": "Bearer me"}
    ended = ask(url, "GET", f"{RUNS}/{exec_id}?wait=60s", headers=me).json
    assert (ended["exitCode"], ended["overflowWaits"]) == (0, False)
