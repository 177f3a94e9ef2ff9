"""The credential: where a request may show it, that it is passed on, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tests.gateway.alone import Alone
from tests.gateway.http import Answer, ask
from tests.gateway.spy import Spy
from tests.waiting import eventually

StartAlone = Callable[..., Alone]
# As a token looks.
TOKEN = f"eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..{'a' * 16}.{'b' * 60}.{'c' * 22}"
MODES = (("POST", "exec"), ("GET", "poll"), ("POST", "poll"), ("POST", "echo"), ("GET", "follow"), ("POST", "cancel"))


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def exec_(url: str, name: str, cmd: str, headers: dict[str, str] | None = None) -> Answer:
    return ask(url, "POST", f"/api/exec/{name}", {"cmd": cmd}, headers)


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    yield spy
    spy.close()


@pytest.fixture
def gateway(alone: StartAlone, spy: Spy) -> Alone:
    """A gateway of a production server, which is a spy."""
    return alone(spy.target, "--production")


def test_t_gw_09_a_token_is_one_segment(url: str) -> None:
    """It has two dots in a row and is no other path: in --dev tokens are refused, by 401 and without a word of them."""
    for method, mode in MODES:
        answer = ask(url, method, f"/api/{mode}/{TOKEN}", {"cmd": "true"} if method == "POST" else None)
        assert answer.status == 401, mode
        assert len(answer.json["error"]) > 20
        assert not [part for part in TOKEN.split(".") if part and part.encode() in answer.body]


def test_the_header_does_as_well_as_the_path(url: str) -> None:
    """With a placeholder in the path, for each mode; both may say the same, but not two different things."""
    assert exec_(url, "-", "echo hi", bearer("ann")).json["status"] == "accepted"
    found = eventually(lambda: one if (one := ask(url, "GET", "/api/poll/ann").json)["output"] else None)
    assert found["output"] == "hi"
    assert ask(url, "GET", "/api/poll/-", headers=bearer("ann")).json["exec_id"] == found["exec_id"]
    assert ask(url, "GET", "/api/poll/ann", headers=bearer("ann")).json["exec_id"] == found["exec_id"]
    assert ask(url, "POST", "/api/echo/-", {}, bearer("ann")).json["user"] == "ann"
    for header in ("Bearer bob", "Bearer ann2", "Basic YW5uOg==", "ann"):
        answer = exec_(url, "ann", "echo no", {"Authorization": header})
        assert answer.status == 400
        assert "two different credentials" in answer.json["error"]


def test_without_a_header_the_placeholder_is_a_name_like_any_other(url: str) -> None:
    """In --dev the uuid alone always works."""
    assert ask(url, "POST", "/api/echo/-", {}).json["user"] == "-"


def test_a_name_starts_as_many_as_it_likes(url: str) -> None:
    """In --dev a name is no token: each exec is a new one."""
    first = exec_(url, "ann", "true").json
    assert first["status"] == "accepted"
    second = eventually(lambda: one if (one := exec_(url, "ann", "true").json)["status"] == "accepted" else None)
    assert second["exec_id"] != first["exec_id"]


def test_t_gw_10_without_a_credential_nothing_reaches_the_server(gateway: Alone, spy: Spy) -> None:
    """401, for every mode and route, by the gateway itself: it has no identity of its own to fall back on."""
    paths = [(method, f"/api/{mode}/-") for method, mode in MODES]
    paths += [("GET", "/v1/info"), ("GET", "/v1/executions"), ("POST", "/v1/executions")]
    paths += [("GET", "/v1/executions/x"), ("GET", "/v1/executions/x/follow"), ("POST", "/v1/executions/x/cancel")]
    for method, path in paths:
        for headers in ({}, {"X-Forwarded-User": "root", "Cookie": f"authorization={TOKEN}"}):
            answer = ask(gateway.url, method, path, {"cmd": "true"} if method == "POST" else None, headers)
            assert answer.status == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert spy.calls == []


def test_t_au_02_a_header_that_is_no_credential(gateway: Alone, spy: Spy) -> None:
    """Too long, not ASCII or empty: 401 at the gateway."""
    for value in ("Bearer " + "x" * 10_000, "Bearer \u00e4", ""):
        headers = {"Authorization": value.encode("latin-1").decode("latin-1")}
        assert ask(gateway.url, "GET", "/v1/info", headers=headers).status == 401
    assert spy.calls == []


def test_t_au_04_the_server_is_told_the_credential_and_nothing_else(gateway: Alone, spy: Spy) -> None:
    """Whatever headers a client sends, none but its own credential becomes metadata."""
    sent = {"X-Forwarded-User": "root", "X-Caller": "root", "Proxied-Identity": "root", "Grpc-Timeout": "1S",
            "Forwarded": "for=10.0.0.1", "X-Request-Id": "1", "Cookie": "a=b", "Traceparent": "00-1-1-01"}  # fmt: skip
    for method, mode in MODES:
        ask(gateway.url, method, f"/api/{mode}/{TOKEN}", {"cmd": "true"} if method == "POST" else None, sent)
    ask(gateway.url, "GET", "/v1/executions", headers=sent | bearer(TOKEN))
    assert {name for name, _ in spy.calls} == {"Exec", "Get", "Poll", "List", "GetServerInfo"}
    assert all(metadata == {"authorization": f"Bearer {TOKEN}"} for _, metadata in spy.calls)


@pytest.mark.parametrize("path", ["/api/poll/-", "/v1/executions", "/v1/executions/x/follow"])
def test_what_is_wrong_with_a_credential_is_not_told(gateway: Alone, spy: Spy, path: str) -> None:
    """The server's own words stay behind: 401, the same sentence each time, and how to do better."""
    info = error_details_pb2.ErrorInfo(reason="KEY_EXPIRED", domain="rexec", metadata={"kid": "alice-1"})
    spy.end_with(grpc.StatusCode.UNAUTHENTICATED, "the key alice-1 has expired", info)
    answer = ask(gateway.url, "GET", path, headers=bearer(TOKEN))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"alice-1" not in answer.body
    assert b"EXPIRED" not in answer.body
    assert b"Authorization: Bearer" in answer.body
    spy.end_with(grpc.StatusCode.UNAUTHENTICATED, "no such key")
    assert ask(gateway.url, "GET", path, headers=bearer(TOKEN)).body == answer.body


def test_what_is_not_allowed_and_what_is_too_often(gateway: Alone, spy: Spy) -> None:
    """403; 429 with the server's own word on when to try again, or with ours when it has none."""
    spy.end_with(grpc.StatusCode.PERMISSION_DENIED, "not permitted")
    answer = exec_(gateway.url, TOKEN, "rm -rf /")
    assert (answer.status, answer.json["error"]) == (403, "not permitted")
    assert "WWW-Authenticate" not in answer.headers
    for retry, seconds in ((error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7)), 7), (None, 1)):
        details = [error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="rexec"), *([retry] if retry else [])]
        spy.end_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "this caller calls too often", *details)
        for asked in (exec_(gateway.url, TOKEN, "true"), ask(gateway.url, "GET", f"/api/poll/{TOKEN}")):
            assert (asked.status, asked.headers["Retry-After"]) == (429, str(seconds))
    spy.end_with(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "as many run as may", error_details_pb2.ErrorInfo(reason="EXHAUSTED")
    )
    assert exec_(gateway.url, TOKEN, "true").json == {"mode": "exec", "status": "busy"}


def test_the_page_needs_no_credential(gateway: Alone, spy: Spy) -> None:
    """It is the same for everybody, and asks for what it shows with a credential of its own."""
    answers: list[Any] = [ask(gateway.url, "GET", path).status for path in ("/", "/openapi.json", "/static/app.js")]
    assert answers == [200, 200, 200]
    assert spy.calls == []
