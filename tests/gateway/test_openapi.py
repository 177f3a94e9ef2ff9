"""The OpenAPI document, and whether the gateway does what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.http import ask
from tests.servers import Server

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# Rules that span fields, such as "arguments or shell", cannot all be said in a schema; nor can what runs just now.
LEFT_OUT = "positive_data_acceptance"


def test_the_document_is_there_and_names_every_route(url: str) -> None:
    """OpenAPI 3.1, for the modes and for /v1."""
    document = ask(url, "GET", "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert {path.split("/")[1] for path in document["paths"]} == {"api", "v1"}
    assert len(document["paths"]) == 17


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(with_gateway: Callable[..., Server], tmp_path: Path) -> None:
    """No 5xx, no undocumented answer, no answer that its schema forbids, nothing invalid that is accepted."""
    # It starts whatever it makes up: nothing but what is built into the shell, in a directory of its own.
    url = with_gateway(env={"PATH": "/nonexistent"}, cwd=tmp_path).gateway
    command = [
        SCHEMATHESIS, "run", f"{url}/openapi.json", "--checks", "all", "--exclude-checks", LEFT_OUT,
        "--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--seed", "1", "--request-timeout", "10",
        "--no-color", "--exclude-path-regex", "follow",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=150)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
