"""List: which executions there are, in pages, and whose."""

from __future__ import annotations

import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from tests.rpc.calls import bearer, ended, poll, refused, run, start
from tests.servers import Server


def ids(server: Server, as_caller: str = "", **fields: object) -> list[str]:
    """Ids on one page."""
    answer = server.stub.List(api.ListRequest(**fields), metadata=bearer(as_caller))
    return [execution.exec_id for execution in answer.executions]


def test_newest_first_running_and_ended(server: Server) -> None:
    """All executions are listed, whatever their state, the newest first."""
    run(server, "true", exec_id="a")
    start(server, "sleep", "30", exec_id="b")
    run(server, "false", exec_id="c")
    run(server, "/no/such", exec_id="d")
    listed = server.stub.List(api.ListRequest()).executions
    assert [execution.exec_id for execution in listed] == ["d", "c", "b", "a"]
    assert [execution.state for execution in listed] == [
        pb.STATE_FAILED, pb.STATE_FAILED, pb.STATE_RUNNING, pb.STATE_SUCCEEDED,
    ]  # fmt: skip
    assert listed[0] == poll(server, "d").execution


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pages_are_the_whole(server: Server, size: int) -> None:
    """Pages neither skip nor repeat, although something new is started between them; the last has no token."""
    for number in range(6):
        run(server, "true", exec_id=f"e{number}")
    found: list[str] = []
    token, pages = "", 0
    while True:
        answer = server.stub.List(api.ListRequest(page_size=size, page_token=token))
        found += [execution.exec_id for execution in answer.executions]
        pages += 1
        run(server, "true", exec_id=f"new{pages}")
        if not (token := answer.next_page_token):
            break
    assert found == [f"e{number}" for number in reversed(range(6))]
    assert pages == -(-6 // size)


def test_filters(server: Server) -> None:
    """States, labels and group narrow the list, and together more than alone."""
    run(server, "true", exec_id="a", labels={"team": "x", "n": "1"}, exclusive_group="g")
    run(server, "false", exec_id="b", labels={"team": "x", "n": "2"})
    start(server, "sleep", "30", exec_id="c", labels={"team": "y"}, exclusive_group="g")
    assert ids(server, states=[pb.STATE_RUNNING]) == ["c"]
    assert ids(server, states=[pb.STATE_SUCCEEDED, pb.STATE_FAILED]) == ["b", "a"]
    assert ids(server, labels={"team": "x"}) == ["b", "a"]
    assert ids(server, labels={"team": "x", "n": "2"}) == ["b"]
    assert ids(server, labels={"team": "z"}) == []
    assert ids(server, exclusive_group="g") == ["c", "a"]
    assert ids(server, exclusive_group="g", states=[pb.STATE_SUCCEEDED], labels={"team": "x"}) == ["a"]
    assert ids(server, labels={"team": "x"}, page_size=1) == ["b"]


def test_a_state_filter_sees_a_change_at_once(server: Server) -> None:
    """Whoever has seen an end finds it in no list of what runs."""
    for number in range(20):
        run(server, "true", exec_id=f"e{number}")
        assert ids(server, states=[pb.STATE_RUNNING, pb.STATE_STARTING]) == []


def test_labels_of_any_text(server: Server) -> None:
    """Values are matched as they are, quotes, percent signs and all."""
    value = "a'b\"c%_\\ü😀{}[]$.x"
    run(server, "true", exec_id="odd", labels={"k": value, "a.b/c-d_e": "1"})
    assert ids(server, labels={"k": value}) == ["odd"]
    assert ids(server, labels={"a.b/c-d_e": "1"}) == ["odd"]
    assert ids(server, labels={"k": "a%"}) == []


def test_everybody_sees_only_their_own(server: Server) -> None:
    """One caller's list has nothing of another's."""
    start(server, "true", exec_id="a", caller="alice")
    start(server, "true", exec_id="b", caller="bob")
    assert ids(server, as_caller="alice") == ["a"]
    assert ids(server, as_caller="alice", caller="alice") == ["a"]
    assert ids(server) == []


def test_an_operator_sees_all(server: Server) -> None:
    """The operator lists one other caller's executions, or everybody's, and may see and end them."""
    start(server, "sleep", "30", exec_id="a", caller="alice")
    start(server, "true", exec_id="b", caller="bob")
    assert ids(server, caller="alice") == ["a"]
    assert ids(server, caller="*") == ["b", "a"]
    server.stub.Cancel(api.CancelRequest(exec_id="a", caller="alice"))
    assert ended(server, "a", caller="alice").reason == pb.REASON_CANCELLED


def test_others_may_not_list_others(server: Server) -> None:
    """Without the role neither one other caller nor everybody is listed."""
    for caller in ("bob", "*"):
        request = api.ListRequest(caller=caller)
        refused(lambda request=request: server.stub.List(request, metadata=bearer("alice")), "PERMISSION_DENIED")


@pytest.mark.parametrize("token", ["x", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "LTE=", "é", "A" * 8000])
def test_a_wrong_page_token_is_named(server: Server, token: str) -> None:
    """A token that no page gave is an error of the request, and the server lives on."""
    answer = refused(lambda: server.stub.List(api.ListRequest(page_token=token), timeout=5), "INVALID_ARGUMENT")
    assert answer.fields == ["page_token"]
    assert ids(server) == []


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"states": [0]}, "states"),
        ({"states": [99]}, "states"),
        ({"labels": {f"l{n}": "v" for n in range(3000)}}, "labels"),
    ],
)
def test_a_wrong_field_is_named(server: Server, fields: dict[str, object], name: str) -> None:
    """What cannot be asked for is refused by its name."""
    assert refused(lambda: server.stub.List(api.ListRequest(**fields), timeout=5), "INVALID_ARGUMENT").fields == [name]


def test_a_state_named_often_is_one(server: Server) -> None:
    """Repetition in a request changes nothing."""
    run(server, "true", exec_id="a")
    assert ids(server, states=[pb.STATE_SUCCEEDED] * 16) == ["a"]


def test_large_executions_can_be_listed(server: Server) -> None:
    """Executions with long arguments are all reached by paging, and each can be polled with a full page of output."""
    for number in range(6):
        start(server, "true", *["x" * 100_000] * 15, exec_id=f"e{number}")
    found: list[str] = []
    token = None
    while token != "":
        answer = server.stub.List(api.ListRequest(page_token=token or ""))
        found += [execution.exec_id for execution in answer.executions]
        token = answer.next_page_token
    assert found == [f"e{number}" for number in reversed(range(6))]
    run(server, "sh", "-c", "head -c 2000000 /dev/zero", "sh", *["x" * 100_000] * 15, exec_id="big")
    assert len(poll(server, "big", offset=0).chunks[0].data) > 0
