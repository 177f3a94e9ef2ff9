"""The allowlist on a real server: what reaches the program, what surrounds it, and how often it may be started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.production.site import Site
from tests.rpc.calls import duration, joined, refused
from tests.waiting import eventually

Stub = api_grpc.ExecutionServiceStub
CONCURRENT = 200
# Shows its own arguments as the kernel has them, each ended by a NUL.
RECORD = "#!/bin/sh\ncat /proc/$$/cmdline\nexit $?\n"
RULES = """
trusted_owners = [{uid}]

[[rule]]
name = "pattern"
arguments = ["{record}", "pattern", "--value={{word}}", "{{{{literal}}}}"]
callers = ["alice"]
working_directory = "{directory}/work"
slots.word = {{ type = "pattern", pattern = '(?s).*' }}

[[rule]]
name = "int"
arguments = ["{record}", "int", "{{number}}"]
callers = ["alice"]
working_directory = "{directory}/work"
slots.number = {{ type = "int", min = 1, max = 5 }}

[[rule]]
name = "enum"
arguments = ["{record}", "enum", "{{choice}}"]
callers = ["alice"]
working_directory = "{directory}/work"
slots.choice = {{ type = "enum", values = ["a", "$(touch canary)"] }}

[[rule]]
name = "path"
arguments = ["{record}", "path", "{{file}}"]
callers = ["alice"]
working_directory = "{directory}/work"
slots.file = {{ type = "path", root = "{directory}/work", exists = false }}

[[rule]]
name = "env"
arguments = ["/usr/bin/env"]
callers = ["alice"]
environment = {{ FIXED = "is $HOME" }}
environment_slots.TOKEN = {{ type = "pattern", pattern = '[ -~]*', secret = true }}
environment_slots.OTHER = {{ type = "int", min = 1, max = 2 }}
loader_ok = "it is given no arguments"

[[rule]]
name = "seldom"
arguments = ["/bin/echo", "seldom"]
callers = ["alice", "bob"]
rate = "2/h"

[[rule]]
name = "one"
arguments = ["/bin/sleep", "600"]
callers = ["alice", "bob"]
max_running = 1

[[rule]]
name = "bounded"
arguments = ["/bin/cat"]
callers = ["alice"]
stdin = "bytes"
timeout = "5s"
"""
HOSTILE = [
    ";touch canary",
    "`touch canary`",
    "$(touch canary)",
    "|touch canary",
    "&touch canary",
    "a && touch canary",
    ">canary",
    "'; touch canary; '",
    '"; touch canary; "',
    "'\"'\"'\"$(touch canary)",
    "\\$(touch canary)",
    "*",
    "~",
    "${IFS}touch${IFS}canary",
    "{word}",
    "%n%s",
    "\u00fc \u65e5\u672c",
    "a\ntouch canary",
    "a\rb",
    "a\tb",
    "\x1b[31m",
    "-rf",
    "--help",
]


def rules(directory: Path) -> str:
    return RULES.format(record=directory / "record", directory=directory, uid=os.geteuid())


def prepare(directory: Path) -> None:
    """The program that the rules name, and the directory in which it runs."""
    (directory / "work").mkdir(parents=True)
    (directory / "record").write_text(RECORD)
    (directory / "record").chmod(0o755)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with the rules above, for all tests of this module; it was started with a variable of its own."""
    directory = tmp_path_factory.mktemp("allowlist")
    directory.chmod(0o700)
    prepare(directory)
    site = Site(directory, rules=rules(directory), max_running=2 * CONCURRENT)
    site.start(env={"INHERITED": "must not be seen"})
    yield site
    site.close()


@pytest.fixture(scope="module")
def stub(place: Site) -> Stub:
    return place.certified("alice")


def run(stub: Stub, *arguments: str, **fields: Any) -> api.ExecResponse:
    return stub.Exec(api.ExecRequest(arguments=arguments, wait=duration(30), **fields), timeout=60)


def started(stub: Stub, *arguments: str) -> str | None:
    """The id, or None when there is no room for it."""
    try:
        return stub.Exec(api.ExecRequest(arguments=arguments), timeout=60).execution.exec_id
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return None


def recorded(answer: api.ExecResponse) -> list[str]:
    """The arguments that the program had, after its own name."""
    assert answer.execution.state == pb.STATE_SUCCEEDED, answer.execution
    shell, _, *arguments = joined(answer.chunks).decode().split("\0")
    assert (shell, arguments.pop()) == ("/bin/sh", "")
    return arguments


def expected(kind: str, value: str, directory: Path) -> list[str] | None:
    """What the program gets for a value; None: it is not started."""
    control = any(character < " " for character in value)
    match kind:
        case "pattern":
            return None if control or value.startswith("-") else [kind, f"--value={value}", "{literal}"]
        case "path":
            return None if control else [kind, f"{directory}/work/{value}"]
        case "enum":
            return [kind, value] if value == "$(touch canary)" else None
    return None


def request(kind: str, value: str, as_line: bool) -> api.ExecRequest:
    arguments = ["record", kind, f"--value={value}", "{literal}"] if kind == "pattern" else ["record", kind, value]
    if as_line:
        return api.ExecRequest(shell=shlex.join(arguments), wait=duration(30))
    return api.ExecRequest(arguments=arguments, wait=duration(30))


@pytest.mark.parametrize("kind", ["pattern", "int", "enum", "path"])
@pytest.mark.parametrize("as_line", [False, True])
def test_t_az_10_no_value_is_more_than_a_value(place: Site, stub: Stub, kind: str, as_line: bool) -> None:
    """T-AZ-10: what would run something in a shell reaches the program byte for byte, or is refused."""
    calls = [(value, stub.Exec.future(request(kind, value, as_line), timeout=60)) for value in HOSTILE]
    for value, call in calls:
        wanted = expected(kind, value, place.directory)
        if wanted is None:
            assert call.exception().code() == grpc.StatusCode.PERMISSION_DENIED, value
        else:
            assert recorded(call.result()) == wanted
    assert list((place.directory / "work").iterdir()) == []
    assert not Path("canary").exists()


@pytest.mark.parametrize("kind", ["pattern", "int", "enum", "path"])
def test_t_az_10_no_value_has_a_nul(stub: Stub, kind: str) -> None:
    """T-AZ-10: a NUL, at which the kernel would cut, is in no request."""
    refused(
        lambda: stub.Exec(request(kind, "a\0;touch canary", False), timeout=60), "INVALID_ARGUMENT", "INVALID_FIELD"
    )


def test_t_az_20_the_environment_is_exactly_what_was_declared(stub: Stub) -> None:
    """T-AZ-20: base, fixed and filled variables, and nothing of the server's own environment."""
    answer = run(stub, "env", environment_variables={"TOKEN": "$(id) = `id`"})
    assert sorted(joined(answer.chunks).decode().splitlines()) == [
        "FIXED=is $HOME", "HOME=/", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", "TOKEN=$(id) = `id`",
    ]  # fmt: skip
    assert list(answer.execution.environment_names) == ["TOKEN"]
    for name in ("LD_PRELOAD", "PATH", "INHERITED", "FIXED"):
        call = refused(lambda name=name: run(stub, "env", environment_variables={name: "/tmp"}), "PERMISSION_DENIED")
        assert call.message == f"not permitted: rule 'env' takes no environment variable {name!r}"


def test_t_az_22_two_hundred_at_once_each_have_their_own(stub: Stub) -> None:
    """T-AZ-22: requests that are decided at the same time share nothing."""
    calls = [stub.Exec.future(request("pattern", f"value {n}", n % 2 == 1), timeout=90) for n in range(CONCURRENT)]
    for number, call in enumerate(calls):
        assert recorded(call.result()) == ["pattern", f"--value=value {number}", "{literal}"]


def test_t_az_03_unknown_and_forbidden_look_alike_from_outside(place: Site) -> None:
    """T-AZ-03: code, message, details and trailers are the same for what there is not and what others have."""
    bob, seen = place.certified("bob"), []
    for asked in (
        api.ExecRequest(arguments=["no-such-command"]),
        api.ExecRequest(arguments=["record", "int", "3"]),
        api.ExecRequest(arguments=["record", "int", "77"]),
        api.ExecRequest(shell="record int 3"),
        api.ExecRequest(arguments=["env"], environment_variables={"TOKEN": "x"}),
        api.ExecRequest(arguments=["cat"], timeout=duration(600)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            bob.Exec(asked, timeout=60)
        error = caught.value
        status = rpc_status.from_call(error)
        assert status is not None
        trailers = [(name, value) for name, value in error.trailing_metadata() if name != "date"]
        seen.append((error.code(), error.details(), status.SerializeToString(), trailers))
    assert seen == [seen[0]] * len(seen)
    assert seen[0][:2] == (grpc.StatusCode.PERMISSION_DENIED, "not permitted: no rule allows it")


def test_t_az_40_a_program_that_others_can_write_is_not_run(place: Site, stub: Stub) -> None:
    """T-AZ-40: the check is made before each run; the log says to the operator what the caller is not told."""
    program = place.directory / "record"
    assert recorded(run(stub, "record", "int", "3")) == ["int", "3"]
    program.chmod(0o775)
    try:
        call = refused(lambda: run(stub, "record", "int", "3"), "PERMISSION_DENIED")
        assert call.message == "not permitted: its program is not safe to run now"
    finally:
        program.chmod(0o755)
    assert f"rule 'int' is not run: its program is not safe: {program} can be written by others" in place.log
    assert recorded(run(stub, "record", "int", "3")) == ["int", "3"]


def test_a_rules_rate_is_told_with_when_to_come_again(place: Site, stub: Stub) -> None:
    """More starts than a rule's rate are refused with RetryInfo, for that caller alone."""
    for _ in range(2):
        run(stub, "echo", "seldom")
    call = refused(lambda: run(stub, "echo", "seldom"), "RESOURCE_EXHAUSTED")
    assert 1000 < call.details["RetryInfo"].retry_delay.seconds <= 1800
    assert call.details["QuotaFailure"].violations[0].subject == "rule seldom"
    assert run(place.certified("bob"), "echo", "seldom").execution.state == pb.STATE_SUCCEEDED


def test_a_rule_runs_no_more_than_it_may_at_once(place: Site, stub: Stub) -> None:
    """max_running is of the rule, whoever started it, and an end makes room."""
    bob = place.certified("bob")
    first = stub.Exec(api.ExecRequest(arguments=["sleep", "600"]), timeout=60).execution
    call = refused(lambda: bob.Exec(api.ExecRequest(arguments=["sleep", "600"]), timeout=60), "RESOURCE_EXHAUSTED")
    assert call.details["RetryInfo"].HasField("retry_delay")
    assert call.details["QuotaFailure"].violations[0].subject == "rule one"
    stub.Cancel(api.CancelRequest(exec_id=first.exec_id), timeout=60)
    second = eventually(lambda: started(bob, "sleep", "600"))
    bob.Cancel(api.CancelRequest(exec_id=second), timeout=60)


def test_a_request_beyond_its_rule_names_the_field(stub: Stub) -> None:
    """Who has the rule can correct the request."""
    call = refused(lambda: run(stub, "cat", timeout=duration(6)), "INVALID_ARGUMENT")
    assert call.fields == ["timeout"]
    answer = run(stub, "cat", stdin_mode=api.STDIN_MODE_BYTES, initial_stdin=b"in", timeout=duration(4))
    assert joined(answer.chunks) == b"in"


def test_starts_of_a_caller_are_limited(make_site: Callable[..., Site]) -> None:
    """caller_starts is for all rules together."""
    site = make_site(caller_starts="2/h")
    site.start()
    alice = site.certified("alice")
    run(alice, "echo", "a")
    run(alice, "sleep", "0")
    call = refused(lambda: run(alice, "echo", "b"), "RESOURCE_EXHAUSTED")
    assert call.details["RetryInfo"].retry_delay.seconds > 1000
    assert run(site.certified("bob"), "echo", "c").execution.state == pb.STATE_SUCCEEDED


def test_t_az_41_a_broken_reload_keeps_the_old_policy(make_site: Callable[..., Site]) -> None:
    """T-AZ-41: a file that is wrong, or whose own tests fail, changes nothing but the log; a good one counts."""
    site = make_site()
    site.start()
    alice = site.certified("alice")
    good = Path(site.path("policy.toml")).read_text()
    running = alice.Exec(api.ExecRequest(arguments=["sleep", "600"]), timeout=60).execution
    new = good.replace('name = "echo"', 'name = "renamed"')
    for broken, said in (
        (new.replace("callers", "calers", 1), "rule 'renamed': unknown key 'calers'"),
        (new.replace('expect = "allow"', 'expect = "deny"'), "expects deny, but rule 'renamed' allows it"),
        (new + "]", "Invalid"),
        ("", "has no [[rule]]"),
        ("rule = " + "[" * 20_000, "nested too deeply"),
    ):
        site.write("policy.toml", broken.encode())
        site.reload()
        (line,) = [line for line in site.log.splitlines() if "policy NOT reloaded" in line and said in line]
        assert "the old ones stay in force" in line
        assert run(alice, "echo", "old").execution.state == pb.STATE_SUCCEEDED
    site.write("policy.toml", new.replace('"sleep"', '"nap"').replace("/bin/sleep", "/bin/true").encode())
    site.reload()
    refused(lambda: run(alice, "sleep", "0"), "PERMISSION_DENIED", "NOT_ALLOWED")
    assert run(alice, "true", "5").execution.state == pb.STATE_SUCCEEDED
    poll = alice.Poll(api.PollRequest(exec_id=running.exec_id), timeout=60).execution
    assert poll.state == pb.STATE_RUNNING
    alice.Cancel(api.CancelRequest(exec_id=running.exec_id), timeout=30)


def test_t_az_41_a_failing_test_keeps_the_server_from_starting(make_site: Callable[..., Site]) -> None:
    """T-AZ-41: a server does not start with a policy that its own tests refuse."""
    site = make_site()
    text = Path(site.path("policy.toml")).read_text()
    site.write("policy.toml", text.replace('expect = "allow"', 'expect = "deny"').encode())
    assert site.refused().endswith("rule 'echo': test 1 expects deny, but rule 'echo' allows it")
