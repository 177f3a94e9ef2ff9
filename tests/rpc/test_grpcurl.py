"""grpcurl with nothing but the address: what a person types."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.rpc.calls import ended, run
from tests.servers import Server

GRPCURL = Path(sys.executable).parent / "grpcurl"
COUNT = Path(__file__).resolve().parents[2] / "examples" / "count.py"
SERVICE = "rexec.v1.ExecutionService"


def grpcurl(server: Server, *arguments: str, data: Any = None) -> subprocess.CompletedProcess[str]:
    flags = ["-plaintext", "-format-error", *(["-d", json.dumps(data)] if data is not None else [])]
    return subprocess.run([GRPCURL, *flags, server.target, *arguments], capture_output=True, text=True, timeout=40)


def call(server: Server, method: str, **data: Any) -> dict[str, Any]:
    result = grpcurl(server, f"{SERVICE}/{method}", data=data)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def stream(server: Server, **data: Any) -> list[dict[str, Any]]:
    """The messages of a Follow."""
    result = grpcurl(server, f"{SERVICE}/Follow", data=data)
    assert result.returncode == 0, result.stderr
    decoder, messages, text = json.JSONDecoder(), [], result.stdout.strip()
    while text:
        message, end = decoder.raw_decode(text)
        messages.append(message)
        text = text[end:].strip()
    return messages


def test_list_and_describe(server: Server) -> None:
    """The services and their methods are told by reflection, comments left out."""
    services = grpcurl(server, "list").stdout.split()
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(services)
    methods = grpcurl(server, "list", SERVICE).stdout.split()
    assert {name.rpartition(".")[2] for name in methods} == {
        "Exec", "Get", "Poll", "Follow", "Acknowledge", "List",
        "Signal", "Cancel", "WriteStdin", "Delete", "GetServerInfo",
    }  # fmt: skip
    assert "rpc Follow ( .rexec.v1.FollowRequest ) returns ( stream .rexec.v1.FollowResponse );" in (
        grpcurl(server, "describe", SERVICE).stdout
    )
    assert "exclusive_group" in grpcurl(server, "describe", "rexec.v1.ExecRequest").stdout


def test_count_started_polled_and_followed(server: Server) -> None:
    """The example counts from 28 to 48: started with an id, polled for the newest 3 lines, followed to the end."""
    command = [sys.executable, str(COUNT), "--every", "0.15"]
    started = call(server, "Exec", exec_id="count", arguments=command)
    assert started["execution"]["state"] == "STATE_RUNNING"
    messages = stream(server, exec_id="count", text=True)
    outputs = [chunk for message in messages for chunk in message.get("output", {}).get("chunks", [])]
    assert "".join(chunk["text"] for chunk in outputs).split() == [str(n) for n in range(28, 49)]
    assert len(outputs) >= 15  # each as it came
    assert list(messages[0])[-1] == "snapshot"
    assert messages[-1]["end"]["exit_code" if "exit_code" in messages[-1]["end"] else "exitCode"] == 0
    polled = call(server, "Poll", exec_id="count", text=True)
    assert "".join(chunk["text"] for chunk in polled["chunks"]) == "46\n47\n48\n"
    assert polled["eof"] is True


def test_poll_while_it_counts(server: Server) -> None:
    """In the middle the newest three lines are there, in order."""
    call(server, "Exec", exec_id="count", arguments=[sys.executable, str(COUNT), "--every", "0.2"])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        polled = call(server, "Poll", exec_id="count", text=True)
        lines = [int(n) for n in "".join(chunk["text"] for chunk in polled.get("chunks", [])).split()]
        if polled["execution"]["state"] != "STATE_RUNNING":
            break
        assert lines == list(range(max(28, lines[-1] - 2), lines[-1] + 1)) if lines else True
    assert lines == [46, 47, 48]
    assert ended(server, "count").exit_code == 0


def test_errors_have_details(server: Server) -> None:
    """A refused call shows its status, what was wrong, and the details in words."""
    result = grpcurl(server, f"{SERVICE}/Exec", data={"exec_id": ".x", "arguments": ["true"]})
    assert result.returncode != 0
    assert "InvalidArgument" in result.stderr or '"code": 3' in result.stderr
    assert "exec_id" in result.stderr
    assert re.search(r"BadRequest", result.stderr)
    result = grpcurl(server, f"{SERVICE}/Poll", data={"exec_id": "none"})
    assert "no execution 'none'" in result.stderr
    assert "NOT_FOUND" in result.stderr


def test_health(server: Server) -> None:
    """The health service answers for the server and for the service, and knows no other."""
    for name in ("", SERVICE):
        result = grpcurl(server, "grpc.health.v1.Health/Check", data={"service": name})
        assert "SERVING" in result.stdout
    assert grpcurl(server, "grpc.health.v1.Health/Check", data={"service": "none"}).returncode != 0


def test_server_info(server: Server) -> None:
    """GetServerInfo needs no arguments, and says who one is."""
    info = call(server, "GetServerInfo")
    assert info["caller"] == "dev"
    run(server, "true")


def test_who_only_polls_can_hold(server: Server) -> None:
    """A loop over Poll gets all of a command that writes four times its limit: each offset acknowledges."""
    limit = {"max_bytes": 65536, "overflow": "OVERFLOW_WAIT"}
    call(server, "Exec", exec_id="held", shell="head -c 262144 /dev/zero", output=limit)
    size, answer = 0, {"next_offset": "0"}
    while not answer.get("eof"):
        answer = call(server, "Poll", exec_id="held", offset=answer["next_offset"], holder="loop", wait="30s")
        size += sum(len(base64.b64decode(chunk["data"])) for chunk in answer.get("chunks", ()))
        assert "skipped_bytes" not in answer, answer
    assert size == 262144
    assert answer["execution"]["exit_code"] == 0
