"""The audit of a real server: there before the command is, complete after every crash, and free of secrets.

T-LG-02, tokens in paths, is the gateway's. T-LG-05, a chain of hashes, waits: docs/audit.md says why.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.policy.journals import FakeJournald
from tests.production.site import RULES, Site
from tests.rpc.calls import joined, outcome, refused, request
from tests.waiting import eventually

MAKE_SITE = Callable[..., Site]


def run(site: Site, *arguments: str, name: str = "alice", **fields: Any) -> api.ExecResponse:
    return site.stub().Exec(request(*arguments, **{"wait": 30, **fields}), metadata=site.bearer(name), timeout=40)


def poll(site: Site, exec_id: str, name: str = "alice") -> pb.Execution:
    asked = api.PollRequest(exec_id=exec_id)
    return site.stub().Poll(asked, metadata=site.bearer(name), timeout=60).execution


def told(site: Site, exec_id: str) -> list[dict[str, Any]]:
    return [line for line in site.audited if line.get("exec_id") == exec_id]


def with_rule(name: str, *arguments: str, **facts: str) -> str:
    """The usual rules, and one for alice."""
    more = "".join(f'{key} = "{value}"\n' for key, value in facts.items())
    return f'{RULES}\n[[rule]]\nname = "{name}"\narguments = {json.dumps(arguments)}\ncallers = ["alice"]\n{more}'


def test_a_run_is_told_from_its_start_to_its_end(site: Site) -> None:
    """One accepted and one finished line with the same name; they say who, how proven, what and how it ended."""
    run(site, "echo", "hello", exec_id="told")
    accepted, finished = eventually(lambda: len(told(site, "told")) == 2 and told(site, "told"))
    assert (accepted["event"], finished["event"]) == ("accepted", "finished")
    assert accepted["name"] == finished["name"]
    assert (accepted["caller"], accepted["method"], accepted["key_id"]) == ("alice", "token", "alice-1")
    assert accepted["peer"].startswith("ipv4:127.0.0.1:")
    assert (accepted["rule"], accepted["arguments"]) == ("echo", ["echo", "hello"])
    assert (finished["state"], finished["exit_code"], finished["stdout_bytes"]) == ("SUCCEEDED", 0, 6)
    site.certified("bob").Exec(request("echo", "x", exec_id="by-bob"), timeout=60)
    assert told(site, "by-bob")[0]["method"] == "certificate"


def test_it_is_written_before_the_command_runs(make_site: MAKE_SITE) -> None:
    """A command that reads the audit finds itself in it."""
    site = make_site()
    site.write("policy.toml", with_rule("self", "/bin/cat", str(site.audit)).encode())
    site.start()
    answer = run(site, "cat", str(site.audit), exec_id="myself")
    lines = [json.loads(line) for line in joined(answer.chunks).splitlines()]
    assert [line["event"] for line in lines if line.get("exec_id") == "myself"] == ["accepted"]


def test_what_a_caller_does_and_may_not_do_is_told(site: Site) -> None:
    """A refusal with what was asked for; a signal, a cancellation and a deletion with whose execution it was."""
    refused(lambda: run(site, "rm", "-rf", "/", exec_id="no"), "PERMISSION_DENIED")
    run(site, "sleep", "600", exec_id="s", wait=0)
    olga = site.bearer("olga")
    site.stub().Signal(api.SignalRequest(exec_id="s", caller="alice", signal=signal.SIGSTOP), metadata=olga, timeout=60)
    site.stub().Cancel(api.CancelRequest(exec_id="s", caller="alice"), metadata=olga, timeout=60)
    eventually(lambda: poll(site, "s").state == pb.STATE_FAILED)
    site.stub().Delete(api.DeleteRequest(exec_id="s"), metadata=site.bearer("alice"), timeout=60)
    (denied,) = told(site, "no")
    assert (denied["event"], denied["caller"], denied["arguments"]) == ("denied", "alice", ["rm", "-rf", "/"])
    by_event = {line["event"]: line for line in told(site, "s")}
    assert by_event.keys() == {"accepted", "signalled", "cancelled", "finished", "deleted"}
    for event in ("signalled", "cancelled"):
        assert (by_event[event]["caller"], by_event[event]["owner"]) == ("olga", "alice")
    assert by_event["signalled"]["signal"] == signal.SIGSTOP
    assert by_event["finished"]["reason"] == "CANCELLED"


@pytest.mark.parametrize("answer", ["EXEC_ID_CONFLICT", "TOKEN_USED", "EXEC_ID_USED"])
def test_a_refusal_is_told_whatever_is_answered(site: Site, answer: str) -> None:
    """Who asks for what is not allowed by an id or token that is used already is told of that; the audit of both."""
    stub, mark, metadata = site.stub(), f"mark-of-{answer}", site.bearer("alice")
    stub.Exec(request("echo", "x", exec_id=answer, wait=30), metadata=metadata, timeout=40)
    if answer == "EXEC_ID_USED":
        stub.Delete(api.DeleteRequest(exec_id=answer), metadata=site.bearer("alice"), timeout=60)
    if answer != "TOKEN_USED":
        metadata = site.bearer("alice")
    exec_id = "another" if answer == "TOKEN_USED" else answer
    status = "FAILED_PRECONDITION" if answer == "EXEC_ID_USED" else "ALREADY_EXISTS"
    refused(lambda: stub.Exec(request("rm", mark, exec_id=exec_id), metadata=metadata, timeout=60), status, answer)
    (line,) = [line for line in site.audited if line.get("arguments") == ["rm", mark]]
    assert (line["event"], line["exec_id"], line["caller"]) == ("denied", exec_id, "alice")
    assert line["reason"] == "not permitted: no rule allows it"


@pytest.mark.parametrize("exec_id", ["a/b", "x" * 129])
def test_an_id_that_cannot_be_uses_up_nothing(site: Site, exec_id: str) -> None:
    """It is refused for itself, before anybody asks whether the command is allowed: it says nothing of that."""
    answers = [refused(lambda c=command: run(site, c, exec_id=exec_id), "INVALID_ARGUMENT") for command in ("rm", "ls")]
    assert [answer.fields for answer in answers] == [["exec_id"], ["exec_id"]]
    assert not told(site, exec_id)


def test_t_lg_03_what_a_caller_writes_is_one_line(site: Site) -> None:
    """T-LG-03: a refused request with newlines and escapes in it makes one line in the audit, and none in the log."""
    nasty = 'x\n{"event":"accepted","exec_id":"forged"}\n\x1b[31m'
    refused(lambda: run(site, "echo", nasty, exec_id="nasty"), "PERMISSION_DENIED")
    (line,) = told(site, "nasty")
    assert line["arguments"] == ["echo", nasty]
    assert not told(site, "forged")
    assert "\x1b" not in site.log
    assert '\n{"event"' not in site.log


def test_t_lg_01_secrets_are_nowhere(make_site: MAKE_SITE) -> None:
    """T-LG-01: a secret in the environment, in the input or as a token is in no log, file or command line of ours."""
    site = make_site()
    site.start()
    in_environment, in_input = f"env-{secrets.token_hex(16)}", f"input-{secrets.token_hex(16)}"
    token, refused_token = site.token("alice"), site.token("alice", aud="elsewhere")
    metadata = [("authorization", f"Bearer {token}")]
    stub = site.stub()
    asked = request("env", environment_variables={"TOKEN": in_environment}, exec_id="env", wait=30)
    assert in_environment.encode() in joined(stub.Exec(asked, metadata=metadata, timeout=40).chunks)
    refused(
        lambda: stub.List(api.ListRequest(), metadata=[("authorization", f"Bearer {refused_token}")]), "UNAUTHENTICATED"
    )
    opened = request("cat", stdin_mode=api.STDIN_MODE_OPEN, initial_stdin=in_input.encode(), exec_id="cat")
    stub.Exec(opened, metadata=site.bearer("alice"), timeout=60)
    stub.WriteStdin(
        api.WriteStdinRequest(exec_id="cat", offset=len(in_input), data=in_input.encode()),
        metadata=site.bearer("alice"), timeout=60,
    )  # fmt: skip
    refused(lambda: run(site, "env", environment_variables={"OTHER": in_environment}), "PERMISSION_DENIED")

    found = _traces(site, in_environment, in_input, token, refused_token)
    assert found == set()
    site.end(signal.SIGTERM)
    assert _traces(site, in_environment, in_input, token, refused_token) == set()
    assert str(site.audit) in _traces(site, "alice-1")  # what is there is found


def _traces(site: Site, *marks: str) -> set[str]:
    """Where any of the marks is, but in the output of the commands, which is theirs to decide."""
    places: dict[str, bytes] = {}
    for path in site.directory.rglob("*"):
        if path.is_file() and path.suffix != ".log":
            places[str(path)] = path.read_bytes()
    places["server.log"] = site.log.encode()
    for process in psutil.process_iter():
        try:
            places[f"pid {process.pid}"] = "\0".join(process.cmdline()).encode()
        except psutil.Error:
            continue
    assert any(name.endswith("index.sqlite") for name in places)
    assert str(site.audit) in places
    return {name for name, data in places.items() for mark in marks if mark.encode() in data}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, for the audit alone."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield path
    eventually(lambda: subprocess.run(["umount", str(path)], capture_output=True).returncode == 0)


def test_t_lg_04_a_full_disk_refuses_starts_alone(disk: Path, make_site: MAKE_SITE) -> None:
    """T-LG-04: nothing starts that cannot be written down; what runs goes on, is polled, ends, and is told later."""
    site = make_site(audit=str(disk / "audit.jsonl"))
    site.audit = disk / "audit.jsonl"
    site.start()
    run(site, "sleep", "600", exec_id="runs", wait=0)
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"\0" * 256 * 1024)
    # The last page of the file has some room yet.
    eventually(lambda: outcome(lambda: run(site, "echo", "x" * 190)) == grpc.StatusCode.UNAVAILABLE)
    answer = refused(lambda: run(site, "echo", "never", exec_id="never"), "UNAVAILABLE")
    assert answer.message == "the audit log cannot be written: No space left on device"
    refused(lambda: poll(site, "never"), "NOT_FOUND")
    assert poll(site, "runs").state == pb.STATE_RUNNING
    site.stub().Cancel(api.CancelRequest(exec_id="runs"), metadata=site.bearer("alice"), timeout=60)
    eventually(lambda: poll(site, "runs").state == pb.STATE_FAILED)
    ballast.unlink()
    assert run(site, "echo", "again", exec_id="again").execution.exit_code == 0
    lines = [json.loads(line) for line in site.audit.read_text().splitlines() if line.endswith("}")]
    events = [(line["event"], line["exec_id"]) for line in lines if line.get("exec_id") in ("runs", "never", "again")]
    assert ("finished", "runs") in events
    assert ("accepted", "again") in events
    assert "never" not in [exec_id for _, exec_id in events]
    assert site.log.count("the audit log cannot be written") == 1


def test_rotation_on_sighup(make_site: MAKE_SITE) -> None:
    """A renamed file is left alone some time after SIGHUP; together the two have every line, once."""
    site = make_site()
    site.start()
    run(site, "echo", "one", exec_id="one")
    old = site.audit.rename(site.path("audit.1"))
    run(site, "echo", "two", exec_id="two")
    site.reload()
    eventually(site.audit.exists)
    ids = ["one", "two"]

    def another() -> bool:
        ids.append(f"later-{len(ids)}")
        run(site, "echo", "more", exec_id=ids[-1])
        return bool(told(site, ids[-1]))

    eventually(another)
    size = old.stat().st_size
    run(site, "echo", "last", exec_id="last")
    eventually(lambda: len(told(site, "last")) == 2)
    assert old.stat().st_size == size
    both = old.read_text() + site.audit.read_text()
    runs = Counter(json.loads(line).get("exec_id") for line in both.splitlines())
    assert {exec_id: runs[exec_id] for exec_id in ids} == dict.fromkeys(ids, 2)


def test_an_end_while_the_server_was_dead_is_told(make_site: MAKE_SITE) -> None:
    """The next server writes down what ended meanwhile; nothing that was accepted is left open."""
    site = make_site()
    site.start()
    pid = run(site, "sleep", "600", exec_id="orphan", wait=0).execution.pid
    site.end(signal.SIGKILL)
    psutil.Process(pid).kill()
    site.start()
    *_, finished = eventually(lambda: len(told(site, "orphan")) == 2 and told(site, "orphan"))
    assert (finished["event"], finished["signal"]) == ("finished", signal.SIGKILL)


def test_journald_takes_the_lines(tmp_path: Path, make_site: MAKE_SITE) -> None:
    """With journald instead of a file each line is an entry, and without it nothing is started."""
    path = tmp_path / "journal"
    journald = FakeJournald(path)
    site = make_site(audit=f"journald:{path}")
    site.start()
    run(site, "echo", "x", exec_id="j")
    entries = iter(journald.next, None)
    accepted = next(entry for entry in entries if entry["REXEC_EVENT"] == "accepted")
    assert (accepted["REXEC_CALLER"], accepted["REXEC_EXEC_ID"]) == ("alice", "j")
    assert json.loads(accepted["MESSAGE"])["arguments"] == ["echo", "x"]
    assert next(entry for entry in entries if entry["REXEC_EVENT"] == "finished")["REXEC_EXEC_ID"] == "j"
    journald.close()
    path.unlink()
    refused(lambda: run(site, "echo", "x"), "UNAVAILABLE")
