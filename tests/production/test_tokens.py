"""A token starts one execution: on a real server, at once and again and after everything was restarted."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.production.site import Site
from tests.rpc.calls import duration, outcome, refused

Stub = api_grpc.ExecutionServiceStub
Metadata = list[tuple[str, str]]
REPLAYS = 50


@pytest.fixture(scope="module")
def stub(modules_site: Site) -> Stub:
    """To the shared server's listener for tokens."""
    return modules_site.stub()


def exec_(stub: Stub, metadata: Metadata, *arguments: str, **fields: Any) -> api.ExecResponse:
    request = api.ExecRequest(arguments=arguments, wait=duration(20), **fields)
    return stub.Exec(request, metadata=metadata, timeout=40)


def count(stub: Stub, site: Site, label: str) -> int:
    """How many executions of alice have this label."""
    request = api.ListRequest(labels={"test": label})
    return len(stub.List(request, metadata=site.bearer("alice"), timeout=60).executions)


def test_t_tk_09_fifty_replays_at_once_start_one_execution(site: Site, stub: Stub) -> None:
    """Whoever sends the same request with the same token, however often and at once, gets the same execution."""
    metadata, label = site.bearer("alice"), uuid.uuid4().hex
    request = api.ExecRequest(arguments=["echo", "once"], labels={"test": label}, wait=duration(20))
    calls = [stub.Exec.future(request, metadata=metadata, timeout=40) for _ in range(REPLAYS)]
    answers = [call.result() for call in calls]
    assert len({answer.execution.exec_id for answer in answers}) == 1
    assert sum(not answer.already_existed for answer in answers) == 1
    assert {answer.execution.state for answer in answers} == {pb.STATE_SUCCEEDED}
    assert count(stub, site, label) == 1


def test_t_tk_09_another_request_is_refused(site: Site, stub: Stub) -> None:
    """A token that has started something starts nothing else: no other arguments, no other id, for nobody."""
    metadata = site.bearer("alice")
    first = exec_(stub, metadata, "echo", "one")
    for arguments, fields in ((("echo", "two"), {}), (("echo", "one"), {"exec_id": uuid.uuid4().hex})):
        refused(lambda a=arguments, f=fields: exec_(stub, metadata, *a, **f), "ALREADY_EXISTS", "TOKEN_USED")
    again = exec_(stub, metadata, "echo", "one")
    assert again.already_existed
    assert again.execution.exec_id == first.execution.exec_id


def test_t_tk_09_ids_of_tokens_are_each_callers_own(site: Site, stub: Stub) -> None:
    """bob cannot use up alice's token ids by guessing them."""
    token_id = uuid.uuid4().hex
    assert not exec_(stub, site.bearer("bob", jti=token_id), "echo", "bob").already_existed
    assert not exec_(stub, site.bearer("alice", jti=token_id), "echo", "alice").already_existed


def test_t_tk_09_looking_does_not_use_a_token_up(site: Site, stub: Stub) -> None:
    """One token may look as often as its life allows, before and after it started something."""
    metadata = site.bearer("alice")
    for _ in range(2):
        stub.GetServerInfo(api.GetServerInfoRequest(), metadata=metadata, timeout=60)
    started = exec_(stub, metadata, "echo", "hi").execution
    for _ in range(2):
        stub.Poll(api.PollRequest(exec_id=started.exec_id), metadata=metadata, timeout=60)


def test_t_tk_06_a_token_for_reading_starts_and_ends_nothing(site: Site, stub: Stub) -> None:
    """With the scope `read` one can look at one's executions, and do nothing to them."""
    nap = api.ExecRequest(arguments=["sleep", "30"], exec_id=uuid.uuid4().hex)
    stub.Exec(nap, metadata=site.bearer("alice"), timeout=60)

    def reader() -> Metadata:
        return site.bearer("alice", scope="read")

    poll = stub.Poll(api.PollRequest(exec_id=nap.exec_id), metadata=reader(), timeout=60)
    assert poll.execution.state in (pb.STATE_STARTING, pb.STATE_RUNNING)
    assert stub.List(api.ListRequest(), metadata=reader(), timeout=60).executions
    follow = stub.Follow(api.FollowRequest(exec_id=nap.exec_id), metadata=reader(), timeout=60)
    assert next(follow).snapshot.exec_id == nap.exec_id
    follow.cancel()
    for method, request in (
        (stub.Exec, api.ExecRequest(arguments=["echo", "hi"])),
        (stub.Cancel, api.CancelRequest(exec_id=nap.exec_id)),
        (stub.Signal, api.SignalRequest(exec_id=nap.exec_id, signal=15)),
        (stub.WriteStdin, api.WriteStdinRequest(exec_id=nap.exec_id, data=b"x")),
        (stub.Delete, api.DeleteRequest(exec_id=nap.exec_id)),
    ):
        refused(lambda m=method, r=request: m(r, metadata=reader(), timeout=60), "PERMISSION_DENIED", "NOT_ALLOWED")
    stub.Cancel(api.CancelRequest(exec_id=nap.exec_id), metadata=site.bearer("alice"), timeout=60)


def test_t_tk_10_a_replay_after_a_restart_starts_nothing(make_site: Callable[..., Site]) -> None:
    """What a token has started is on disk: kill -9 and a new server change nothing about it."""
    site = make_site()
    site.start()
    stub, metadata = site.stub(), site.bearer("alice")
    first = exec_(stub, metadata, "echo", "one", labels={"test": "replay"})
    site.restart()
    again = exec_(stub, metadata, "echo", "one", labels={"test": "replay"})
    assert again.already_existed
    assert again.execution.exec_id == first.execution.exec_id
    refused(lambda: exec_(stub, metadata, "echo", "two"), "ALREADY_EXISTS", "TOKEN_USED")
    assert count(stub, site, "replay") == 1


def test_t_tk_11_rotation_and_end_of_a_key(make_site: Callable[..., Site]) -> None:
    """A key that was taken out of callers.toml opens nothing after a reload, and the new one does."""
    site = make_site()
    site.start()
    stub = site.stub()
    old = site.keys["alice"]
    site.keys["alice"] = bytes(32)
    site.write_callers()
    site.reload()

    def info(key: bytes) -> grpc.StatusCode:
        metadata = site.bearer("alice", key=key)
        return outcome(lambda: stub.GetServerInfo(api.GetServerInfoRequest(), metadata=metadata, timeout=60))

    assert info(old) == grpc.StatusCode.UNAUTHENTICATED
    assert info(site.keys["alice"]) == grpc.StatusCode.OK
    site.write("callers.toml", b"[callers.alice]\nrole = 'operator'\n")
    site.reload()
    assert "NOT reloaded" in site.log
    assert "unknown key 'role'" in site.log
    assert info(site.keys["alice"]) == grpc.StatusCode.OK


def test_t_ds_05_who_guesses_is_told_to_wait_and_callers_are_not(make_site: Callable[..., Site]) -> None:
    """Bad tokens are soon answered with RESOURCE_EXHAUSTED and a time, while a good one passes in between."""
    site = make_site(failed_auth="5/h")
    site.start()
    stub = site.stub()
    codes: list[grpc.StatusCode] = []

    def guess() -> None:
        metadata = [("authorization", "Bearer x")]
        for _ in range(10):
            codes.append(outcome(lambda: stub.List(api.ListRequest(), metadata=metadata, timeout=60)))

    guessing = [threading.Thread(target=guess) for _ in range(4)]
    for thread in guessing:
        thread.start()
    for _ in range(10):
        stub.GetServerInfo(api.GetServerInfoRequest(), metadata=site.bearer("alice"), timeout=60)
    for thread in guessing:
        thread.join()
    assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 5
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 35
    answer = refused(lambda: stub.List(api.ListRequest(), timeout=60), "RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert answer.details["RetryInfo"].retry_delay.ToSeconds() > 60
    assert site.log.count("was not let in") == 5
