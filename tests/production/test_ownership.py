"""Whose executions a caller may know of: its own; and everybody's, while it is an operator."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.production.site import Site
from tests.waiting import eventually

# Each call that names an execution, and the fields that it needs besides.
CALLS: dict[str, dict[str, Any]] = {
    "Poll": {}, "Follow": {}, "Cancel": {}, "Signal": {"signal": 10}, "WriteStdin": {"data": b"x"}, "Delete": {},
}  # fmt: skip


def started(site: Site, name: str, *arguments: str, **fields: Any) -> str:
    """An execution of a caller, by its id."""
    request = api.ExecRequest(exec_id=secrets.token_hex(8), arguments=arguments, **fields)
    return site.stub().Exec(request, metadata=site.bearer(name)).execution.exec_id


def answer(site: Site, name: str, rpc: str, exec_id: str, **fields: Any) -> tuple[str, str]:
    """How a call is answered, without the id; a stream by its first message."""
    request = getattr(api, f"{rpc}Request")(exec_id=exec_id, **CALLS[rpc], **fields)
    call = getattr(site.stub(), rpc)
    try:
        reply = call(request, metadata=site.bearer(name), timeout=60)
        if rpc == "Follow":
            next(reply)
            reply.cancel()
    except grpc.RpcError as error:
        return error.code().name, error.details().replace(exec_id, "ID")
    return "OK", ""


@pytest.mark.parametrize("rpc", CALLS)
def test_t_az_30_anothers_execution_looks_like_none(site: Site, rpc: str) -> None:
    """To bob, alice's execution and an id that nobody ever used are answered alike; and nothing happens to it."""
    exec_id = started(site, "alice", "cat", stdin_mode=api.STDIN_MODE_OPEN)
    takes_a_caller = "caller" in getattr(api, f"{rpc}Request").DESCRIPTOR.fields_by_name
    for more in ({}, {"caller": "alice"}) if takes_a_caller else ({},):
        theirs = answer(site, "bob", rpc, exec_id, **more)
        assert theirs == answer(site, "bob", rpc, "0" * 16, **more)
        assert theirs[0] == "NOT_FOUND"
    execution = site.stub().Poll(api.PollRequest(exec_id=exec_id), metadata=site.bearer("alice")).execution
    assert execution.stdin.bytes_written == 0
    assert execution.state == pb.STATE_RUNNING
    assert answer(site, "alice", "Cancel", exec_id)[0] == "OK"


def test_t_az_33_an_operator_sees_and_ends_everybodys(site: Site) -> None:
    """By naming whose it is. Who is none may not even ask for everybody's."""
    exec_id = started(site, "alice", "sleep", "600")
    for rpc in ("Poll", "Follow", "Cancel"):
        assert answer(site, "olga", rpc, exec_id, caller="alice")[0] == "OK"
    assert answer(site, "olga", "Poll", exec_id)[0] == "NOT_FOUND"
    everybodys = api.ListRequest(caller="*")
    listed = site.stub().List(everybodys, metadata=site.bearer("olga")).executions
    assert ("alice", exec_id) in [(one.caller, one.exec_id) for one in listed]
    with pytest.raises(grpc.RpcError) as refused:
        site.stub().List(everybodys, metadata=site.bearer("bob"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_t_az_34_a_role_that_is_taken_away_ends_the_stream(site: Site) -> None:
    """An operator who is none any more loses what she follows of others, with its next message."""
    exec_id = started(site, "alice", "sleep", "600")
    request = api.FollowRequest(exec_id=exec_id, caller="alice")
    request.heartbeat_interval.FromMilliseconds(1000)
    stream = site.stub().Follow(request, metadata=site.bearer("olga"), timeout=60)
    assert next(stream).WhichOneof("event") == "snapshot"
    callers = Path(site.path("callers.toml"))
    callers.write_text(callers.read_text().replace('["operator"]', "[]"))
    try:
        site.reload()
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert answer(site, "olga", "Poll", exec_id, caller="alice")[0] == "NOT_FOUND"
    finally:
        site.write_callers()
        site.reload()
    assert answer(site, "olga", "Cancel", exec_id, caller="alice")[0] == "OK"


def test_t_in_01_an_id_is_no_path(site: Site) -> None:
    """What could be more than a name is refused, and no file appears outside the spool."""
    before = _outside(site)
    for exec_id in ("../../x", "a/b", "..", ".hidden", "{1}", "a b", "a\n", "\u00e4", "x" * 129, "x" * 10_000):
        request = api.ExecRequest(exec_id=exec_id, arguments=["echo", "hi"])
        with pytest.raises(grpc.RpcError) as refused:
            site.stub().Exec(request, metadata=site.bearer("alice"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, exec_id
    exec_id = started(site, "alice", "echo", "hi")
    eventually(lambda: answer(site, "alice", "Delete", exec_id)[0] == "OK")
    assert _outside(site) == before


def _outside(site: Site) -> set[Path]:
    """All files of the site that are no execution's."""
    spool = site.state_dir / "spool"
    return {path for path in site.directory.rglob("*") if spool not in path.parents and "-" not in path.suffix}
