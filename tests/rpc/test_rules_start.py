"""The rules of the contract about starting: 1, 2, 11, 12 and 14."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import START_SERVER, bearer, ended, follow, poll, refusal, refused, request, run, start
from tests.servers import Server
from tests.waiting import eventually


def test_rule_01_a_retry_is_the_same_execution(server: Server, tmp_path: Path) -> None:
    """The same id with the same request returns the same execution, running and ended, and starts nothing."""
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs; sleep 0.2", exec_id="once")
    first = server.stub.Exec(order)
    again = server.stub.Exec(order)
    ended(server, "once")
    late = server.stub.Exec(order)
    assert (first.already_existed, again.already_existed, late.already_existed) == (False, True, True)
    assert first.execution.pid == again.execution.pid == late.execution.pid
    assert (tmp_path / "runs").read_text() == "x\n"


def test_rule_01_fifty_at_once_are_one_process(server: Server, tmp_path: Path) -> None:
    """However many calls race for one id, one command runs, and one of them is told that it started it."""
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs", exec_id="race")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: server.stub.Exec(order), range(50)))
    ended(server, "race")
    assert sum(not answer.already_existed for answer in answers) == 1
    assert len({answer.execution.pid for answer in answers}) == 1
    assert (tmp_path / "runs").read_text() == "x\n"


def test_rule_01_another_request_conflicts(server: Server) -> None:
    """The same id with another request is refused, also when the first has ended."""
    run(server, "true", exec_id="taken")
    refused(lambda: start(server, "false", exec_id="taken"), "ALREADY_EXISTS", "EXEC_ID_CONFLICT")


def test_rule_01_wait_and_text_are_not_identity(server: Server) -> None:
    """How the answer is wanted does not make another request."""
    start(server, "echo", "hi", exec_id="same")
    answer = server.stub.Exec(request("echo", "hi", exec_id="same", wait=10, text=True))
    assert answer.already_existed
    assert [chunk.text for chunk in answer.chunks] == ["hi\n"]


def test_rule_01_a_deleted_id_stays_used(server: Server) -> None:
    """After Delete neither the same request nor another gets the id."""
    run(server, "true", exec_id="gone")
    server.stub.Delete(api.DeleteRequest(exec_id="gone"))
    refused(lambda: start(server, "true", exec_id="gone"), "FAILED_PRECONDITION", "EXEC_ID_USED")
    refused(lambda: start(server, "false", exec_id="gone"), "FAILED_PRECONDITION", "EXEC_ID_USED")


def test_rule_01_an_expired_id_stays_used(server: Server) -> None:
    """After its retention an execution is gone and its id is used, also for a restarted server."""
    run(server, "true", exec_id="old", retention=0.01)
    eventually(lambda: not server.stub.List(api.ListRequest()).executions)
    refused(lambda: start(server, "true", exec_id="old"), "FAILED_PRECONDITION", "EXEC_ID_USED")
    server.restart()
    refused(lambda: start(server, "true", exec_id="old"), "FAILED_PRECONDITION", "EXEC_ID_USED")


def test_rule_01_the_reservation_is_durable(server: Server, tmp_path: Path) -> None:
    """A retry that reaches a restarted server finds the execution, and starts nothing."""
    order = request("sh", "-c", f"echo x >> {tmp_path}/runs; sleep 30", exec_id="kept")
    first = server.stub.Exec(order)
    server.restart()
    again = eventually(lambda: server.stub.Exec(order, wait_for_ready=True, timeout=10))
    assert again.already_existed
    assert again.execution.pid == first.execution.pid
    assert (tmp_path / "runs").read_text() == "x\n"


def test_rule_01_a_caller_who_hangs_up_and_retries_runs_it_once(server: Server, tmp_path: Path) -> None:
    """Calls that are given up at any moment of the start leave one execution, which a retry finds."""
    for number in range(20):
        order = request("sh", "-c", f"echo x >> {tmp_path}/runs{number}", exec_id=f"hang-up-{number}")
        with suppress(grpc.RpcError):
            server.stub.Exec(order, timeout=0.0002 + number / 2000)
        assert server.stub.Exec(order).execution.exec_id == f"hang-up-{number}"
        assert ended(server, f"hang-up-{number}").exit_code == 0
        assert (tmp_path / f"runs{number}").read_text() == "x\n"


@pytest.mark.parametrize(
    ("fields", "errno"),
    [
        ({"arguments": ["/no/such/program"]}, "ENOENT"),
        ({"arguments": ["no-such-program-in-path"]}, "ENOENT"),
        ({"arguments": ["/etc/passwd"]}, "EACCES"),
        ({"arguments": ["/etc"]}, "EACCES"),
        ({"arguments": ["true"], "working_directory": "/no/such/directory"}, "ENOENT"),
        ({"arguments": ["true"], "working_directory": "/etc/passwd"}, "ENOTDIR"),
        ({"arguments": ["true", "x" * 200_000]}, "E2BIG"),
    ],
)
def test_rule_02_what_cannot_be_started_is_an_execution(server: Server, fields: dict[str, object], errno: str) -> None:
    """A failure to start is told by the system's name for it, and never as an exit code."""
    execution = server.stub.Exec(api.ExecRequest(exec_id="bad", **fields)).execution
    assert execution.state == pb.STATE_FAILED
    assert execution.reason == pb.REASON_START_FAILED
    assert execution.start_error.errno == errno
    assert execution.start_error.message
    assert execution.WhichOneof("exit_status") is None
    assert list(follow(server, "bad"))[-1].end.start_error == execution.start_error


def test_rule_02_a_script_without_a_line_is_enoexec(server: Server, tmp_path: Path) -> None:
    """What the kernel cannot execute is not given to a shell behind the caller's back."""
    script = tmp_path / "script"
    script.write_text("echo hi\n")
    script.chmod(0o755)
    assert run(server, str(script)).execution.start_error.errno == "ENOEXEC"


def test_rule_02_a_non_zero_exit_is_ok(server: Server) -> None:
    """What the command returns is its result, not the call's."""
    assert run(server, "sh", "-c", "exit 3").execution.exit_code == 3


def test_rule_11_secrets_are_nowhere(server: Server) -> None:
    """Environment values and input appear in no reply, no log and no file of the state directory."""
    value, given = "SECRET-VALUE-8f3a", b"SECRET-INPUT-8f3a"
    for exec_id, program in (("runs", ("sleep", "30")), ("fails", ("/no/such",)), ("ends", ("true",))):
        start(
            server, *program, exec_id=exec_id, environment_variables={"TOKEN": value}, stdin_mode=api.STDIN_MODE_OPEN,
            initial_stdin=given,
        )  # fmt: skip
    refused(lambda: start(server, "x", exec_id="runs", environment_variables={"T": value}), "ALREADY_EXISTS")
    refused(lambda: start(server, "x", exec_id="/", environment_variables={"T": value}), "INVALID_ARGUMENT")
    refused(lambda: start(server, "x", environment_variables={"T": value + "\0"}), "INVALID_ARGUMENT")
    ended(server, "ends")
    replies = [str(poll(server, "runs")), str(server.stub.List(api.ListRequest())), *map(str, follow(server, "ends"))]
    assert all("TOKEN" in reply for reply in replies)
    files = [path for path in server.state_dir.rglob("*") if path.is_file()]
    assert any(path.name == "index.sqlite" for path in files)
    contents = [reply.encode() for reply in replies] + [server.log.encode()] + [path.read_bytes() for path in files]
    for content in contents:
        for secret in (value.encode(), given):
            assert secret not in content
    assert poll(server, "runs").execution.environment_names == ["TOKEN"]


def test_rule_12_anothers_execution_looks_unknown(server: Server) -> None:
    """No call tells another caller's execution from one that never was, by status, words or details."""
    start(server, "sleep", "30", exec_id="mine", caller="alice")
    stub, mallory = server.stub, bearer("mallory")
    calls = [
        lambda exec_id, **_: stub.Signal(api.SignalRequest(exec_id=exec_id, signal=15, **_), metadata=mallory),
        lambda exec_id, **_: stub.Poll(api.PollRequest(exec_id=exec_id, **_), metadata=mallory),
        lambda exec_id, **_: list(stub.Follow(api.FollowRequest(exec_id=exec_id, **_), metadata=mallory)),
        lambda exec_id, **_: stub.Cancel(api.CancelRequest(exec_id=exec_id, **_), metadata=mallory),
    ]
    for call in calls:
        for caller in ("", "alice"):
            _looks_unknown(partial(call, caller=caller))
    _looks_unknown(lambda exec_id: stub.WriteStdin(api.WriteStdinRequest(exec_id=exec_id), metadata=mallory))
    _looks_unknown(lambda exec_id: stub.Delete(api.DeleteRequest(exec_id=exec_id), metadata=mallory))
    assert not stub.List(api.ListRequest(), metadata=mallory).executions
    assert poll(server, "mine", caller="alice").execution.state == pb.STATE_RUNNING


def _looks_unknown(call: Callable[[str], object]) -> None:
    theirs = refused(lambda: call("mine"), "NOT_FOUND")
    unknown = refused(lambda: call("none"), "NOT_FOUND")
    assert str(theirs).replace("mine", "none") == str(unknown)


def test_rule_12_ids_are_each_callers_own(server: Server) -> None:
    """Two callers may use the same id for different things."""
    one = start(server, "echo", "1", exec_id="id", caller="alice")
    two = start(server, "echo", "2", exec_id="id", caller="bob")
    assert (one.caller, two.caller) == ("alice", "bob")
    assert one.arguments != two.arguments


def test_rule_14_one_of_two_wins_the_group(server: Server) -> None:
    """Of many at once in one group one runs and the others are told BUSY; afterwards the group is free."""

    def attempt(number: int) -> str:
        order = request("sleep", "30", exec_id=f"g{number}", exclusive_group="g")
        try:
            server.stub.Exec(order)
        except grpc.RpcError as error:
            return refusal(error).reason
        return f"g{number}"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count("BUSY") == 7
    (winner,) = (outcome for outcome in outcomes if outcome != "BUSY")
    server.stub.Cancel(api.CancelRequest(exec_id=winner))
    ended(server, winner)
    start(server, "true", exec_id="next", exclusive_group="g")


def test_rule_14_a_retry_of_the_winner_is_not_busy(server: Server) -> None:
    """Who holds the group may ask again; other groups and other callers are free."""
    order = request("sleep", "30", exec_id="holder", exclusive_group="g")
    server.stub.Exec(order)
    assert server.stub.Exec(order).already_existed
    start(server, "true", exec_id="other", exclusive_group="h")
    start(server, "true", exec_id="theirs", exclusive_group="g", caller="bob")


def test_rule_14_a_refused_id_is_not_used(server: Server) -> None:
    """BUSY reserves nothing: the same id may be tried again."""
    start(server, "sleep", "30", exec_id="holder", exclusive_group="g")
    order = request("true", exec_id="later", exclusive_group="g", wait=10)
    refused(lambda: server.stub.Exec(order), "FAILED_PRECONDITION", "BUSY")
    server.stub.Cancel(api.CancelRequest(exec_id="holder"))
    ended(server, "holder")
    assert server.stub.Exec(order).execution.exit_code == 0


def test_rule_14_the_group_outlives_the_server(start_server: START_SERVER) -> None:
    """A restarted server knows who holds a group."""
    server = start_server()
    start(server, "sleep", "30", exec_id="holder", exclusive_group="g")
    server.restart()
    eventually(lambda: poll(server, "holder"))
    refused(lambda: start(server, "true", exec_id="two", exclusive_group="g"), "FAILED_PRECONDITION", "BUSY")
