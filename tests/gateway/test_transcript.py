"""The transcript with which it all began, typed with the real httpie."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.waiting import eventually

HTTPIE = Path(sys.executable).parent / "http"
COUNT = Path(__file__).resolve().parents[2] / "examples" / "count.py"


def http(method: str, url: str, *items: str) -> Any:
    """What httpie prints, read as JSON."""
    command = [HTTPIE, "--ignore-stdin", "--check-status", "--body", method, url, *items]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def numbers(answer: Any) -> list[int]:
    """The lines of a poll, which are numbers."""
    return [int(line) for line in answer["output"].split("\n") if line]


def test_the_transcript(url: str, tmp_path: Path) -> None:
    """Exec is accepted, then busy; polls give the newest three lines, then newer ones; the end gives the exit code."""
    more, end = tmp_path / "more", tmp_path / "end"
    run = f"{sys.executable} {COUNT} --every 0; {_until(more)}; echo 49; {_until(end)}; echo 50"
    assert http("POST", f"{url}/api/exec/097aa543", f"cmd={run}")["status"] == "accepted"
    assert http("POST", f"{url}/api/exec/097aa543", f"cmd={run}") == {"mode": "exec", "status": "busy"}

    shown: list[int] = []

    def polled(last: int) -> Any:
        """A poll, if the lines that were shown have come to that one."""
        answer = http("POST", f"{url}/api/poll/097aa543")
        assert len(numbers(answer)) <= 3
        shown.extend(numbers(answer))
        return answer if shown and shown[-1] == last else None

    assert eventually(lambda: polled(48))["status"] == "running"
    more.touch()
    assert eventually(lambda: polled(49))["output"] == "49"
    end.touch()
    last = eventually(lambda: (answer := polled(50)) and answer["status"] == "finished" and answer)
    assert last["exit_code"] == 0
    assert shown == sorted(set(shown))
    assert http("POST", f"{url}/api/exec/097aa543", "cmd=true")["status"] == "accepted"


def _until(file: Path) -> str:
    return f"until [ -e {file} ]; do sleep 0.02; done"


def test_the_connection_test(url: str) -> None:
    """Echo takes any JSON, also fields that are named as httpie's own, and says who one is."""
    answer = http("POST", f"{url}/api/echo/097aa543", 'head:={"a1":"bb"}', "body=x")
    assert answer["uuid"] == answer["user"] == "097aa543"
