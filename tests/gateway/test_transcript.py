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
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def numbers(answer: Any) -> list[int]:
    """The lines of a poll, which are numbers."""
    return [int(line) for line in answer["output"].split("\n") if line]


def test_the_transcript(url: str) -> None:
    """Exec is accepted, then busy; polls give the newest three lines, then newer ones; the end gives the exit code."""
    run = f"cmd={sys.executable} {COUNT} --every 0.15"
    assert http("POST", f"{url}/api/exec/097aa543", run)["status"] == "accepted"
    assert http("POST", f"{url}/api/exec/097aa543", run) == {"mode": "exec", "status": "busy"}

    first = eventually(lambda: _polled(url, at_least=3))
    assert first["status"] == "running"
    shown = numbers(first)
    later = eventually(lambda: _polled(url, at_least=1))
    assert numbers(later)[0] > shown[-1]

    rest = numbers(later)

    def finished() -> Any:
        answer = http("POST", f"{url}/api/poll/097aa543")
        rest.extend(numbers(answer))
        return answer if answer["status"] == "finished" else None

    last = eventually(finished, within=20)
    assert last["exit_code"] == 0
    assert rest == sorted(set(rest))
    assert rest[-1] == 48
    assert http("POST", f"{url}/api/exec/097aa543", "cmd=true")["status"] == "accepted"


def test_the_connection_test(url: str) -> None:
    """Echo takes any JSON, also fields that are named as httpie's own, and says who one is."""
    answer = http("POST", f"{url}/api/echo/097aa543", 'head:={"a1":"bb"}', "body=x")
    assert answer["uuid"] == answer["user"] == "097aa543"


def _polled(url: str, at_least: int) -> Any:
    answer = http("POST", f"{url}/api/poll/097aa543")
    assert len(numbers(answer)) <= 3
    return answer if len(numbers(answer)) >= at_least else None
