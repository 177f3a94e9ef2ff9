"""Server-Sent Events: every byte once, from any offset, through whatever connections do."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.http import Event, Stream, ask
from tests.servers import Server
from tests.waiting import eventually

Start = Callable[..., Server]


def text(events: list[Event]) -> str:
    return "".join(event.data["output"] for event in events if event.name == "output")


def data(events: list[Event]) -> bytes:
    chunks = [chunk for event in events if event.name == "output" for chunk in event.data["chunks"]]
    return b"".join(base64.b64decode(chunk["data"]) for chunk in chunks)


def test_the_output_and_then_the_end(url: str) -> None:
    """A snapshot, output of both channels, and the end with the exit code, once and last."""
    request = {"shell": "echo out; echo err >&2; exit 3", "exclusiveGroup": "json"}
    ask(url, "POST", "/v1/executions", request, {"Authorization": "Bearer me"})
    with Stream(url, "/api/follow/me") as stream:
        events = list(stream)
    assert events[0].name == "snapshot"
    assert [event.name for event in events].count("end") == 1
    assert events[-1].name == "end"
    assert events[-1].data["exit_code"] == 3
    shown = {chunk["channel"]: chunk["text"] for e in events if e.name == "output" for chunk in e.data["chunks"]}
    assert shown == {"stdout": "out\n", "stderr": "err\n"}


def test_a_json_command_writes_to_one_console(url: str) -> None:
    """Bytes on standard error stand where the command wrote them, in one channel."""
    ask(url, "POST", "/api/exec/me", {"cmd": "echo o1; echo e1 >&2; echo o2"})
    with Stream(url, "/api/follow/me") as stream:
        events = list(stream)
    assert text(events) == "o1\ne1\no2\n"
    channels = {chunk["channel"] for event in events if event.name == "output" for chunk in event.data["chunks"]}
    assert channels == {"stdout"}


def test_resuming_with_last_event_id_is_exact(url: str) -> None:
    """Broken off after any event, as often as one likes, it goes on at the next byte, also within a character."""
    script = r"""for i in $(seq 40); do printf '%s \303' $i; sleep 0.01; printf '\244\n'; done"""
    ask(url, "POST", "/api/exec/me", {"cmd": script})
    events: list[Event] = []
    last: dict[str, str] = {}
    while not events or events[-1].name != "end":
        with Stream(url, "/api/follow/me", last) as stream:
            for event in itertools.islice(stream, 4):
                events.append(event)
                last = {"Last-Event-ID": str(event.id)}
    assert text(events) == "".join(f"{number} ä\n" for number in range(1, 41))


def test_bytes_are_exact(url: str) -> None:
    """Under /v1 output is base64 of what was written, whatever that was; offsets count its bytes."""
    ask(
        url,
        "POST",
        "/v1/executions",
        {"execId": "one", "shell": "head -c 700000 /dev/urandom | tee copy.bin; rm copy.bin"},
    )
    with Stream(url, "/v1/executions/one/follow") as stream:
        whole = list(stream)
    assert len(data(whole)) == 700000
    assert whole[-1].data["state"] == "STATE_SUCCEEDED"
    outputs = [event for event in whole if event.name == "output"]
    middle = outputs[0].id
    assert middle
    with Stream(url, "/v1/executions/one/follow", {"Last-Event-ID": str(middle)}) as stream:
        assert data(list(stream)) == data(whole)[middle:]
    with Stream(url, f"/v1/executions/one/follow?offset={middle + 1}") as stream:
        assert data(list(stream)) == data(whole)[middle + 1 :]


def test_a_gap_is_told(url: str) -> None:
    """What is no longer kept is an event of its own, never silence."""
    request = {"execId": "one", "shell": "head -c 3000000 /dev/zero", "output": {"maxBytes": "1000000"}, "wait": "20s"}
    ask(url, "POST", "/v1/executions", request)
    with Stream(url, "/v1/executions/one/follow") as stream:
        events = list(stream)
    gap = next(event for event in events if event.name == "gap")
    missing = int(gap.data["endOffset"]) - int(gap.data["startOffset"])
    assert missing > 0
    assert missing + len(data(events)) == 3000000


def test_silence_has_heartbeats(url: str) -> None:
    """A stream that says nothing says that it lives."""
    ask(url, "POST", "/v1/executions", {"execId": "one", "shell": "sleep 1000"})
    with Stream(url, "/v1/executions/one/follow?heartbeatInterval=1s") as stream:
        next(iter(stream))
        line = next(line for line in stream.response if line.startswith(b":"))
    assert line == b": heartbeat\n"


def test_a_last_event_id_that_cannot_be(url: str) -> None:
    """Not a number is refused, and so is a number beyond the end: nothing is invented."""
    ask(url, "POST", "/api/exec/me", {"cmd": "true"})
    for value in ("x", "-1", "1.5", "9" * 30, "12"):
        assert ask(url, "GET", "/api/follow/me", headers={"Last-Event-ID": value}).status == 400


def test_beyond_the_bound_streams_are_turned_away_and_polls_are_not(with_gateway: Start) -> None:
    """503 with Retry-After, until one of them ends."""
    url = with_gateway("--gateway-max-streams", "2").gateway
    ask(url, "POST", "/api/exec/me", {"cmd": "sleep 1000"})
    with Stream(url, "/api/follow/me") as first, Stream(url, "/api/follow/me") as second:
        next(iter(first))
        next(iter(second))
        for path in ("/api/follow/me", "/v1/executions?caller=me"):
            answer = ask(url, "GET", path)
            assert answer.status == (503 if "follow" in path else 200)
        refused = ask(url, "GET", "/api/follow/me")
        assert int(refused.headers["Retry-After"]) > 0
        assert ask(url, "GET", "/api/poll/me").json["status"] == "running"
        ask(url, "POST", "/api/cancel/me")
        assert [event.name for event in first][-1] == "end"
        assert eventually(lambda: ask(url, "GET", "/api/follow/me").status == 200)


def test_s8_one_caller_does_not_hold_all_streams(with_gateway: Start) -> None:
    """S8: beyond a caller's share the answer is 429, also for calls that wait; another caller has theirs."""
    url = with_gateway("--gateway-max-streams", "3", "--gateway-caller-streams", "2").gateway
    for caller in ("me", "you"):
        ask(url, "POST", f"/api/exec/{caller}", {"cmd": "sleep 1000"})
    with Stream(url, "/api/follow/me") as first, Stream(url, "/api/follow/me") as second:
        next(iter(first))
        next(iter(second))
        refused = ask(url, "GET", "/api/follow/me")
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert "2 streams of this caller are open" in refused.json["error"]
        with Stream(url, "/api/follow/you") as other:
            assert next(iter(other)).name
            assert ask(url, "GET", "/api/follow/you").status == 503
        assert ask(url, "GET", "/api/poll/me").json["status"] == "running"
        ask(url, "POST", "/api/cancel/me")
        assert [event.name for event in first][-1] == "end"
        assert eventually(lambda: ask(url, "GET", "/api/follow/me").status == 200)


@pytest.mark.timeout(60)
def test_who_goes_away_gives_back_the_place(with_gateway: Start) -> None:
    """A follower that is gone is noticed at the next thing that is said to it."""
    url = with_gateway("--gateway-max-streams", "1").gateway
    ask(url, "POST", "/v1/executions", {"execId": "one", "shell": "while :; do echo x; sleep 0.05; done"})
    path = "/v1/executions/one/follow"
    with Stream(url, path) as stream:
        next(iter(stream))
        assert ask(url, "GET", path).status == 503

    def again() -> Any:
        with Stream(url, path) as stream:
            return next(iter(stream)).name

    assert eventually(again) == "snapshot"
    ask(url, "POST", "/v1/executions/one/cancel")
