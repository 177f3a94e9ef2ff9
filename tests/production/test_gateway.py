"""The gateway of a server that checks its callers: tokens in the path and in the header, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.http import Answer, Stream, ask
from tests.production.site import Site
from tests.waiting import eventually

HI = {"cmd": "echo hi"}
LONG = {"cmd": "sleep 600"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all: olga starts nothing here that she does not end."""
    site = Site(tmp_path_factory.mktemp("front"), gateway=True)
    site.start()
    yield site
    site.close()


def call(site: Site, mode: str, uuid: str, body: Any = None, **headers: str) -> Answer:
    method = "POST" if body is not None else "GET"
    return ask(site.gateway, method, f"/api/{mode}/{uuid}", body, headers, site.path("ca.pem"))


def v1(site: Site, path: str, **headers: str) -> Answer:
    return ask(site.gateway, "GET", f"/v1/{path}", None, headers, site.path("ca.pem"))


def ended(site: Site, name: str) -> Any:
    """The end of a caller's command; its `output` is that of all polls."""
    shown: list[str] = []

    def finished() -> Any:
        answer = call(site, "poll", site.token(name)).json
        shown.extend(filter(None, [answer["output"]]))
        return answer | {"output": "\n".join(shown)} if answer["status"] == "finished" else None

    return eventually(finished)


def test_one_token_starts_and_shows_a_command(front: Site) -> None:
    """In the path; what it started it may look at as often as it likes, while it is good."""
    token = front.token("alice")
    assert call(front, "echo", token, {}).json["user"] == "alice"
    accepted = call(front, "exec", token, HI).json
    assert accepted["status"] == "accepted"
    eventually(lambda: call(front, "poll", token).json["status"] == "finished")
    again = call(front, "poll", token).json
    assert (again["exec_id"], again["exit_code"]) == (accepted["exec_id"], 0)


def test_the_token_in_the_header(front: Site) -> None:
    """With - in its place; /v1 takes it there too."""
    bearer = {"Authorization": f"Bearer {front.token('alice')}"}
    first = call(front, "exec", "-", HI, **bearer).json
    assert first["status"] == "accepted"
    assert ended(front, "alice")["exec_id"] == first["exec_id"]
    assert v1(front, f"executions/{first['exec_id']}", **bearer).json["caller"] == "alice"
    assert call(front, "exec", front.token("alice"), HI, **bearer).status == 400


def test_t_tk_09_a_repeated_exec_is_the_same_execution(front: Site) -> None:
    """Fifty at once with one token: one execution, which all are told of. With another command: 409, nothing runs."""
    token = front.token("bob")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: call(front, "exec", token, LONG), range(50)))
    assert {answer.status for answer in answers} == {200}
    (first,) = {(answer.json["status"], answer.json["exec_id"]) for answer in answers}
    assert first == ("accepted", sha256(token.encode()).hexdigest()[:32])
    assert call(front, "exec", "-", LONG, Authorization=f"Bearer {token}").json["exec_id"] == first[1]
    other = call(front, "exec", token, HI)
    assert other.status == 409
    assert "make a new one for each Exec" in other.json["error"]
    started = [line for line in front.audited if line["event"] == "accepted" and line["exec_id"] == first[1]]
    assert len(started) == 1
    assert call(front, "cancel", front.token("bob"), {}).json["exec_id"] == first[1]
    assert ended(front, "bob")["reason"] == "cancelled"
    assert call(front, "exec", token, LONG).json == {"mode": "exec", "status": "accepted", "exec_id": first[1]}
    assert call(front, "exec", front.token("bob"), HI).json["exec_id"] != first[1]
    ended(front, "bob")


def test_busy_does_not_use_a_token_up(front: Site) -> None:
    """Who was told that something runs still may, with the same token, when it has ended."""
    assert call(front, "exec", front.token("bob"), LONG).json["status"] == "accepted"
    waiting = front.token("bob")
    assert call(front, "exec", waiting, HI).json == {"mode": "exec", "status": "busy"}
    call(front, "cancel", front.token("bob"), {})
    ended(front, "bob")
    assert call(front, "exec", waiting, HI).json["status"] == "accepted"
    ended(front, "bob")


def test_t_tk_06_a_token_for_reading_starts_and_ends_nothing(front: Site) -> None:
    """403, and it still shows."""
    token = front.token("alice", scope="read")
    assert call(front, "exec", token, HI).status == 403
    assert call(front, "poll", token).status == 200
    assert call(front, "echo", token, {}).json["user"] == "alice"


def test_t_gw_10_no_token_and_no_good_one(front: Site) -> None:
    """401 in one sentence that is always the same, whatever is wrong; nothing is said of keys, callers or clocks."""
    good, now = front.token("alice"), int(time.time())
    header, _, iv, text, tag = good.split(".")
    edited = [f"{header}..{iv}.{text[:-1]}{'A' if text[-1] != 'A' else 'B'}.{tag}", good[:-1], good + "A", "alice", "-"]
    edited += [front.token("alice", aud="another-server"), front.token("alice", iat=now - 900, exp=now - 840)]
    edited += [front.token("alice", header={"kid": "nobody-1"}), front.token("alice", sub="olga")]
    answers = [call(front, "exec", token, {"cmd": "echo never"}) for token in edited]
    answers += [call(front, "poll", token) for token in edited]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.json["error"] for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert v1(front, "executions").status == v1(front, "executions", Authorization="Bearer alice").status == 401
    assert not [line for line in front.audited if "never" in str(line)]


def test_t_az_31_another_callers_execution(front: Site) -> None:
    """Through the gateway too it looks exactly like one that is not there; an operator sees it."""
    exec_id = call(front, "exec", front.token("alice"), HI).json["exec_id"]
    ended(front, "alice")
    for path in ("", "/output", "/follow"):
        theirs, none = (
            v1(front, f"executions/{one}{path}", Authorization=f"Bearer {front.token('bob')}")
            for one in (exec_id, "0" * 32)
        )
        assert (theirs.status, none.status) == (404, 404)
        assert theirs.body.replace(exec_id.encode(), b"") == none.body.replace(b"0" * 32, b"")
    olga = f"Bearer {front.token('olga')}"
    assert v1(front, f"executions/{exec_id}?caller=alice", Authorization=olga).json["execId"] == exec_id


def test_what_no_rule_allows(front: Site) -> None:
    """403 for both, the unknown and the forbidden; a shell's tricks are words like any other."""
    for cmd in ("rm -rf /", "cat /etc/passwd", "echo hi; id", "echo", "count", "/bin/sh -c id"):
        assert call(front, "exec", front.token("alice"), {"cmd": cmd}).status == 403, cmd
    assert call(front, "exec", front.token("alice"), {"cmd": "echo '$(id) `id`'"}).json["status"] == "accepted"
    assert ended(front, "alice")["output"] == "$(id) `id`"


def test_t_az_21_output_is_data(front: Site) -> None:
    """What a command prints is neither markup nor a format nor a command to anybody on its way."""
    assert call(front, "exec", front.token("alice"), {"cmd": "echo '<script>%s{0}</script>'"}).status == 200
    assert ended(front, "alice")["output"] == "<script>%s{0}</script>"


def test_following_with_a_token(front: Site) -> None:
    """A stream begins with a token in the path, and goes on for as long as it lasts."""
    call(front, "exec", front.token("alice"), HI)
    with Stream(front.gateway, f"/api/follow/{front.token('alice')}", ca=front.path("ca.pem")) as stream:
        events = list(stream)
    assert [event.name for event in events][-1] == "end"
    assert "".join(event.data.get("output", "") for event in events) == "hi\n"


def test_t_lg_02_tokens_are_in_no_log(front: Site) -> None:
    """Good ones and bad ones, from path and header: not in the server's log, the gateway's, the audit or the spool."""
    tokens = [front.token("alice"), front.token("alice", aud="another-server"), front.token("alice")[:-1]]
    for token in tokens:
        call(front, "exec", token, HI)
        call(front, "poll", token)
        v1(front, "info", Authorization=f"Bearer {token}")
        v1(front, f"executions/{token}", Authorization=f"Bearer {token}")
    ended(front, "alice")
    written = [Path(front.path("server.log")), front.audit, *front.state_dir.rglob("*")]
    for path in written:
        if path.is_file():
            content = path.read_bytes()
            for token in tokens:
                assert not [part for part in token.split(".") if part and part.encode() in content], path
    assert "/api/<mode>/<uuid> 200" in front.log


def test_t_gw_02_a_page_elsewhere_with_a_good_token(front: Site) -> None:
    """Even with a token that somebody gave away, a page of another origin does nothing."""
    token = front.token("alice")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert call(front, "exec", token, HI, **headers).status == 403
    assert call(front, "exec", token, HI, Host="evil.example").status == 400
    assert call(front, "exec", token, HI, Origin=front.gateway).json["status"] == "accepted"
    ended(front, "alice")


def test_too_often(make_site: Any) -> None:
    """429 with Retry-After: that is not "busy", and says when it will do."""
    site = make_site(gateway=True, caller_calls="4/h")
    site.start()
    token = site.token("alice")
    answers = [call(site, "exec", token, HI) for _ in range(4)]
    assert {answer.json["status"] for answer in answers} == {"accepted"}
    refused = call(site, "exec", token, HI)
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 3600
    assert call(site, "exec", site.token("bob"), HI).json["status"] == "accepted"
