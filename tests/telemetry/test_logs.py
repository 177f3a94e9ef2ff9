"""What is logged: readable for people, JSON for programs; whose execution a line is about; and nothing secret."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from rexec.v1 import execution_service_pb2 as api

from rexec_server.logs import JsonFormatter, TextFormatter
from tests.gateway.http import ask
from tests.production.site import Site
from tests.rpc.calls import request, run, start
from tests.runner.harness import Runner
from tests.servers import Server
from tests.telemetry.scrape import WITHIN
from tests.waiting import eventually

TOKEN = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..iviviv.secretsecretsecret.tagtag"
Line = dict[str, Any]


def lines(log: str) -> list[Line]:
    """A log for programs: each line of it is an object."""
    return [json.loads(line) for line in log.splitlines()]


def found(log: Callable[[], str], **fields: object) -> Line:
    """Waits for a line that has these fields."""
    return eventually(
        lambda: next((line for line in lines(whole(log())) if fields.items() <= line.items()), None), within=WITHIN
    )


def whole(text: str) -> str:
    """Without a last line that is just being written."""
    return text[: text.rfind("\n") + 1]


@pytest.fixture
def json_server(start_server: Callable[..., Server]) -> Server:
    return start_server("--log-format", "json")


def record(message: str, *values: object, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.getLogger("test").makeRecord("test", level, "file", 1, message, values, None, extra=fields)
    made.created, made.msecs = 1_700_000_000.125, 125.0
    return made


def test_a_line_for_programs_is_one_object() -> None:
    """With time in UTC, level, program and message, and each field by its name; what is not known is left out."""
    text = JsonFormatter("rexec-server").format(
        record("a\n%s", "b", exec_id="e 1", caller="", signal=None, seconds=1.5)
    )
    assert "\n" not in text
    assert json.loads(text) == {
        "time": "2023-11-14T22:13:20.125Z",
        "level": "INFO",
        "program": "rexec-server",
        "logger": "test",
        "message": "a\nb",
        "exec_id": "e 1",
        "seconds": 1.5,
    }


def test_a_line_for_people_ends_with_its_fields() -> None:
    """A value that could be taken for more is quoted; a line break makes no line."""
    text = TextFormatter().format(record("a\n%s", "b", exec_id="e1", why='x="1"\ny'))
    assert text.endswith(r' INFO test: a\nb exec_id=e1 why="x=\"1\"\ny"')


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter("p")])
def test_no_line_has_a_token_or_a_control_character(formatter: logging.Formatter) -> None:
    """Wherever it is: in the message, in a value, in a field, in a traceback."""
    try:
        raise ValueError(f"bad {TOKEN}")
    except ValueError:
        made = record("%s\x1b[2J\x7f\x85", TOKEN, exec_id=f"x{TOKEN}", peer="\x1b]0;title\x07")
        made.exc_info = sys.exc_info()
    text = formatter.format(made)
    assert "secret" not in text
    assert "token:" in text
    assert "Traceback" in text
    assert not set(text) & {"\x1b", "\x7f", "\x85", "\x07"}


LOGGER = """
import logging, sys
from rexec_server import logs
logs.configure("test", sys.argv[1], sys.argv[2])
for level in ("debug", "info", "warning", "error"):
    getattr(logging, level)("line %s", level)
"""


def logged(style: str, level: str = "info") -> str:
    command = [sys.executable, "-c", LOGGER, style, level]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def test_the_level_is_the_least_that_is_written() -> None:
    """From debug to error."""
    assert [line["level"] for line in lines(logged("json", "debug"))] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert [line["level"] for line in lines(logged("json", "error"))] == ["ERROR"]


def test_auto_is_for_programs_unless_a_terminal_reads() -> None:
    """A pipe gets JSON, a terminal lines for people."""
    assert lines(logged("auto"))
    ours, terminal = pty.openpty()
    try:
        command = [sys.executable, "-c", LOGGER, "auto", "error"]
        subprocess.run(command, stderr=terminal, check=True, timeout=60)
        assert b" ERROR root: line error" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(terminal)


FLOOD = """
import logging, sys
from rexec_server import logs
logs.configure("test", "json")
for number in range(5000):
    logging.info("line %d", number)
print("not stopped", flush=True)
sys.stdin.readline()
logging.info("read again")
"""


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    """What has no room in the pipe is dropped, and how much that was is told as soon as somebody reads again."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", FLOOD]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing, text=True) as process,
        open(reading) as log,
    ):
        os.close(writing)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "not stopped\n"
        kept = lines(emptied(reading))
        process.stdin.write("\n")
        process.stdin.flush()
        dropped, last = lines(log.read())
    assert {line["message"].partition(" ")[0] for line in kept} == {"line"}
    assert "were dropped" in dropped["message"]
    assert dropped["lines"] + len(kept) == 5000
    assert last["message"] == "read again"


def emptied(pipe: int) -> str:
    """What is in it now."""
    data = b""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while piece := os.read(pipe, 65536):
            data += piece
    os.set_blocking(pipe, True)
    return data.decode()


def test_starts_and_ends_say_whose_they_are(json_server: Server) -> None:
    """The id and the caller are in each line about an execution, and the end says how it was."""
    execution = run(json_server, "sh", "-c", "exit 3").execution
    about = {"exec_id": execution.exec_id, "caller": "dev", "program": "rexec-server"}
    started = found(lambda: json_server.log, message="started", **about)
    ended = found(lambda: json_server.log, message="ended", **about)
    assert started["pid"] == execution.pid
    assert (ended["state"], ended["reason"], ended["exit_code"]) == ("FAILED", "EXITED", 3)
    assert started["execution"] == ended["execution"]
    assert (json_server.state_dir / "spool" / ended["execution"]).is_dir()


def test_a_failure_to_start_is_a_warning(json_server: Server) -> None:
    """With the system's name of the error."""
    execution = run(json_server, "/no/such/program").execution
    line = found(lambda: json_server.log, exec_id=execution.exec_id, message="could not be started")
    assert (line["level"], line["error"], line["reason"]) == ("WARNING", "ENOENT", "START_FAILED")


def test_nothing_that_is_secret_is_logged(json_server: Server) -> None:
    """Neither arguments, nor the environment, nor input, nor output; not even at the level debug, not in a failure."""
    secret = "hunter2"
    asked = request("sh", "-c", f"cat; echo {secret}; exit 1", wait=30, initial_stdin=secret.encode(), stdin_mode=2)
    asked.environment_variables["PASSWORD"] = secret
    failing = request(f"/no/{secret}", wait=30)
    failing.environment_variables["PATH"] = f"/{secret}"
    for one in (asked, failing):
        execution = json_server.stub.Exec(one, timeout=60).execution
        found(lambda execution=execution: json_server.log, exec_id=execution.exec_id, state="FAILED")
    assert secret not in json_server.log
    assert secret not in (json_server.state_dir / "runner.log").read_text()


def test_a_lost_execution_is_a_warning_in_server_and_runner(json_server: Server) -> None:
    """Both say which one; the runner knows it by its name in the spool, which the server's lines have too."""
    execution = start(json_server, "sleep", "600")
    (json_server.spool_of(execution.pid) / "start").write_text("{")  # as a power cut may leave it
    shim = json_server.shim_pid(execution.exec_id)
    os.kill(shim, signal.SIGKILL)
    line = found(lambda: json_server.log, exec_id=execution.exec_id, state="LOST")
    assert (line["level"], line["caller"]) == ("WARNING", "dev")
    assert "damaged" in line["why"]
    runners = (json_server.state_dir / "runner.log").read_text
    died = found(runners, message="a shim died; taking over", execution=line["execution"])
    assert (died["program"], died["level"]) == ("rexec-runner", "WARNING")
    assert found(runners, message="an execution LOST", execution=line["execution"])["level"] == "WARNING"
    with suppress(ProcessLookupError):  # without a cgroup nobody knows that it is ours
        os.kill(execution.pid, signal.SIGKILL)


def test_a_runner_that_goes_and_comes_back_is_told(json_server: Server) -> None:
    """Both are warnings: meanwhile nobody takes over from a shim that dies."""
    json_server.kill_runner()
    assert found(lambda: json_server.log, message="rexec-runner is gone; what runs goes on")["level"] == "WARNING"
    back = found(lambda: json_server.log, message="rexec-runner is back")
    assert back["runner_pid"] == json_server.runner_pid


def test_the_gateways_lines_name_the_execution(start_server: Callable[..., Server]) -> None:
    """A request that is about an execution says which; the pattern of its path is there, and never the path."""
    server = start_server("--log-format", "json", "--gateway", "127.0.0.1:0")
    answer = json.loads(ask(server.gateway, "POST", "/api/exec/me", {"cmd": "echo hi"}).body)
    line = found(lambda: server.log, program="rexec-gateway", exec_id=answer["exec_id"])
    assert line["message"] == "POST /api/<mode>/<uuid> 200"
    assert (line["caller"], line["status"], line["level"]) == ("me", 200, "INFO")
    ask(server.gateway, "GET", f"/v1/executions/{answer['exec_id']}")
    line = found(lambda: server.log, message="GET /v1/executions/<exec_id> 404")  # of another caller
    assert line["exec_id"] == answer["exec_id"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path / "site")) as one:
        one.start(env={"REXEC_LOG_FORMAT": "json"})
        yield one


def test_refused_credentials_and_reloads_are_told(site: Site) -> None:
    """From where, and why; nothing of the credential itself. What was reloaded, and what was not, is a line each."""
    with pytest.raises(grpc.RpcError):
        site.stub().List(api.ListRequest(), metadata=[("authorization", f"Bearer {TOKEN}")], timeout=60)
    refused = eventually(
        lambda: [line for line in lines(whole(site.log)) if "was not let in" in line["message"]], within=WITHIN
    )
    assert refused[0]["level"] == "WARNING"
    assert refused[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert "secret" not in site.log
    site.write("policy.toml", b"no rules")
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    found(lambda: site.log, message="callers reloaded", level="INFO")
    assert (
        eventually(
            lambda: [line for line in lines(whole(site.log)) if line["message"].startswith("policy NOT reloaded")],
            within=WITHIN,
        )[0]["level"]
        == "ERROR"
    )


def test_a_runner_alone_says_that_it_is_ready(tmp_path: Path) -> None:
    """And how many executions it has found."""
    with closing(Runner(tmp_path / "state", "--no-cgroup", "--log-format", "json")) as runner:
        assert found(lambda: runner.log, message="ready", program="rexec-runner")["executions"] == 0


@pytest.mark.parametrize("flags", [("--log-format", "xml"), ("--log-level", "loud")])
def test_a_style_or_level_that_is_none_is_refused(tmp_path: Path, flags: tuple[str, str]) -> None:
    """With those that there are."""
    command = [sys.executable, "-m", "rexec_server", "--dev", "--state-dir", str(tmp_path / "state"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert flags[0] in done.stderr
    assert "'json'" in done.stderr or "'warning'" in done.stderr
    assert "Traceback" not in done.stderr
