"""Output that is not whole: each answer and stream says so by a key, and where it is whole none says anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rexec.v1 import execution_service_pb2 as api

from tests.gateway.http import Stream, ask
from tests.gateway.test_follow import data, text
from tests.gateway.test_modes import finished, poll
from tests.servers import Server
from tests.waiting import eventually

ME = {"Authorization": "Bearer me"}
SIZE, LIMIT = 3_000_000, 1_000_000
LONG = f"head -c {SIZE} /dev/zero | tr '\\0' 'a' | fold -w 99"
# With the newlines of `fold`, which adds none behind the last line.
LONG_SIZE = SIZE + SIZE // 99


@pytest.fixture
def server(with_gateway: Callable[..., Server]) -> Server:
    """Provide a server that keeps little of each output, with its gateway."""
    return with_gateway("--output-bytes", str(LIMIT))


@pytest.fixture
def url(server: Server) -> str:
    """Return the address of that gateway."""
    return server.gateway


def run(server: Server, exec_id: str, line: str, **more: Any) -> None:
    """Runs a line to its end as the JSON command of `me`, with what /api/exec has no key for."""
    request = api.ExecRequest(exec_id=exec_id, shell=line, exclusive_group="json", **more)
    request.wait.FromSeconds(60)
    server.stub.Exec(request, metadata=(("authorization", "Bearer me"),))


def test_a_poll_says_how_much_is_no_longer_kept(url: str) -> None:
    """Output that was shown, left out for its length, or is gone adds up to all that was written."""
    ask(url, "POST", "/api/exec/me", {"cmd": LONG})
    eventually(lambda: ask(url, "GET", "/api/follow/me").body.count(b"event: end"))
    answer = poll(url, "me")
    assert answer["status"] == "finished"
    assert answer["missing_bytes"] > LONG_SIZE - LIMIT
    assert len(answer["output"]) + answer["omitted_bytes"] + answer["missing_bytes"] == LONG_SIZE
    assert not poll(url, "me").keys() & {"missing_bytes", "omitted_bytes"}


def test_a_poll_counts_what_is_missing_from_the_last_one_on(url: str, tmp_path: Path) -> None:
    """Output that a caller has seen before is not missing to it."""
    go = tmp_path / "go"
    ask(url, "POST", "/api/exec/me", {"cmd": f"echo seen; until [ -e {go} ]; do sleep 0.02; done; {LONG}"})
    assert "missing_bytes" not in eventually(lambda: found if (found := poll(url, "me"))["output"] == "seen" else None)
    go.touch()
    eventually(lambda: ask(url, "GET", "/api/follow/me").body.count(b"event: end"))
    answer = poll(url, "me")
    assert len(answer["output"]) + answer["omitted_bytes"] + answer["missing_bytes"] == LONG_SIZE


def test_what_is_whole_says_nothing(server: Server) -> None:
    """No key of a poll, of a stream's events or of an answer speaks of missing bytes where none is missing."""
    url = server.gateway
    run(server, "one", "seq 1000")
    polled, _ = finished(url, "me")
    assert polled.keys() == {"mode", "status", "reason", "exit_code", "output", "omitted_bytes", "exec_id"}
    for path, headers in (("/api/follow/me", {}), ("/v1/executions/one/follow", ME)):
        with Stream(url, path, headers) as stream:
            events = list(stream)
        assert [event.name for event in events] == ["snapshot", "output", "end"]
        assert not any(event.data.keys() & {"missing_bytes", "missingBytes", "output_complete"} for event in events)
    request = {"execId": "two", "shell": "seq 1000", "wait": "60s"}
    for encoding in ("base64", "text"):
        assert "missingBytes" not in ask(url, "POST", f"/v1/executions?encoding={encoding}", request, ME).json
    assert ask(url, "GET", "/v1/executions/two/output?offset=0", headers=ME).json["skippedBytes"] == "0"


def test_a_stream_tells_each_gap_and_at_its_end_all_of_them(server: Server) -> None:
    """Under /api and under /v1, and also for who begins in the middle of what is gone."""
    url = server.gateway
    run(server, "one", LONG)
    for start in (0, 1000):
        with Stream(url, "/api/follow/me", {"Last-Event-ID": str(start)}) as stream:
            events = list(stream)
        missing = events[-1].data["missing_bytes"]
        assert missing == sum(event.data["missing_bytes"] for event in events if event.name == "gap")
        assert missing + len(text(events)) == LONG_SIZE - start
        with Stream(url, "/v1/executions/one/follow", {**ME, "Last-Event-ID": str(start)}) as stream:
            events = list(stream)
        assert events[-1].data["missingBytes"] == str(missing)
        assert missing + len(data(events)) == LONG_SIZE - start
        gaps = [event.data for event in events if event.name == "gap"]
        assert [gap["missingBytes"] for gap in gaps] == [
            str(int(gap["endOffset"]) - int(gap["startOffset"])) for gap in gaps
        ]


@pytest.mark.parametrize("encoding", ["base64", "text"])
def test_an_answer_that_waited_says_what_is_missing_in_it(url: str, encoding: str) -> None:
    """The output that comes with the answer to a start is from the start, or says how much of that is gone."""
    request = {"execId": "one", "shell": LONG, "wait": "60s"}
    answer = ask(url, "POST", f"/v1/executions?encoding={encoding}", request).json
    assert answer["execution"]["state"] == "STATE_SUCCEEDED"
    assert answer["missingBytes"] == answer["execution"]["logStartOffset"]
    polled = ask(url, "GET", "/v1/executions/one/output?offset=0").json
    assert polled["skippedBytes"] == answer["missingBytes"]


def test_damage_in_the_middle_is_missing_too(server: Server) -> None:
    """A hole is told by every way to the output, and does not join the lines before and behind it."""
    url = server.gateway
    run(server, "one", "seq -w 0 99999 | tr -d '\\n'; echo; echo last", output=api.OutputLimit(max_bytes=800_000))
    first, second, *_ = sorted(server.state_dir.glob("spool/*/*.log"))
    first.write_bytes(first.read_bytes()[:100])
    hole = int(second.stem) - 100
    polled = ask(url, "GET", "/v1/executions/one/output?offset=0&maxBytes=1000000", headers=ME).json
    assert polled["skippedBytes"] == str(hole)
    with Stream(url, "/api/follow/me") as stream:
        assert list(stream)[-1].data["missing_bytes"] == hole


def test_a_poll_does_not_join_what_damage_tore_apart(server: Server) -> None:
    """The text before and behind a hole are two lines, and the hole is counted."""
    run(server, "one", "seq -w 0 199999 | tr -d '\\n'", output=api.OutputLimit(max_bytes=1 << 16))
    oldest, damaged, behind, *_ = sorted(server.state_dir.glob("spool/*/*.log"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    answer = poll(server.gateway, "me")
    kept = 100 + int(damaged.stem) - int(oldest.stem)
    assert [len(line) for line in answer["output"].split("\n")] == [kept, 1_200_000 - int(behind.stem)]
    assert answer["missing_bytes"] == int(behind.stem) - kept


def test_output_that_somebody_held_open_is_not_called_complete(server: Server) -> None:
    """The end says so where a process that was left could still have written."""
    run(server, "one", "echo hi; sleep 1000 &", leftovers=api.LEFTOVERS_KEEP)
    assert poll(server.gateway, "me")["output_complete"] is False
    with Stream(server.gateway, "/api/follow/me") as stream:
        assert list(stream)[-1].data["output_complete"] is False
