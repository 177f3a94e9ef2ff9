"""`/v1`: the gRPC contract in proto3 JSON."""

from __future__ import annotations

import base64
from typing import Any

from tests.gateway.http import Answer, ask
from tests.waiting import eventually

RUNS = "/v1/executions"


def start(url: str, expect: int = 201, **request: Any) -> Any:
    answer = ask(url, "POST", RUNS, request)
    assert answer.status == expect, answer.json
    return answer.json


def status(answer: Answer) -> tuple[int, str]:
    """The HTTP status and the name of the google.rpc.Code; the body says the same."""
    error = answer.json["error"]
    assert error["code"] == answer.status
    assert error["message"]
    return answer.status, error["status"]


def output(execution: Any) -> bytes:
    return b"".join(base64.b64decode(chunk["data"]) for chunk in execution["chunks"])


def test_a_life_over_json(url: str) -> None:
    """Start, wait, look, list, read, forget; each as the contract says, in camelCase."""
    begun = start(url, execId="one", arguments=["printf", "a\\377b"], wait="10s", labels={"job": "x"})
    assert begun["execution"]["state"] == "STATE_SUCCEEDED"
    assert begun["execution"]["exitCode"] == 0
    assert output(begun) == b"a\xffb"
    assert begun["nextOffset"] == "3"
    assert ask(url, "GET", f"{RUNS}/one").json["execId"] == "one"
    listed = ask(url, "GET", f"{RUNS}?states=STATE_SUCCEEDED&label=job=x&pageSize=5").json
    assert [execution["execId"] for execution in listed["executions"]] == ["one"]
    assert ask(url, "GET", f"{RUNS}?label=job=y").json["executions"] == []
    assert output(ask(url, "GET", f"{RUNS}/one/output?offset=1").json) == b"\xffb"
    text = ask(url, "GET", f"{RUNS}/one/output?offset=0&encoding=text").json
    assert [chunk["text"] for chunk in text["chunks"]] == ["a\N{REPLACEMENT CHARACTER}b"]
    assert ask(url, "DELETE", f"{RUNS}/one").json == {}
    assert status(ask(url, "GET", f"{RUNS}/one")) == (404, "NOT_FOUND")


def test_the_same_id_starts_one_command(url: str) -> None:
    """201 the first time, 200 the second, 409 for another request; a used id stays used."""
    assert start(url, execId="one", shell="echo x", wait="5s")["alreadyExisted"] is False
    assert start(url, 200, execId="one", shell="echo x", wait="5s")["alreadyExisted"] is True
    assert status(ask(url, "POST", RUNS, {"execId": "one", "shell": "echo y"})) == (409, "ALREADY_EXISTS")
    ask(url, "DELETE", f"{RUNS}/one")
    used = ask(url, "POST", RUNS, {"execId": "one", "shell": "echo x"})
    assert status(used) == (400, "FAILED_PRECONDITION")
    assert used.json["error"]["details"][0]["reason"] == "EXEC_ID_USED"


def test_standard_input_signals_and_cancel(url: str) -> None:
    """As base64 and as text; what is written twice is taken once."""
    start(url, execId="cat", arguments=["cat"], stdinMode="STDIN_MODE_OPEN")
    for _ in range(2):
        written = ask(url, "POST", f"{RUNS}/cat/stdin", {"offset": "0", "data": base64.b64encode(b"one\n").decode()})
        assert written.json["stdin"]["bytesWritten"] == "4"
    other = {"offset": 0, "data": base64.b64encode(b"uno\n").decode(), "writer": "other"}
    for skipped in ("0", "4"):
        written = ask(url, "POST", f"{RUNS}/cat/stdin", other).json
        assert (written["stdin"]["bytesWritten"], written["skippedBytes"]) == ("4", skipped)
    ask(url, "POST", f"{RUNS}/cat/stdin?encoding=text", {"offset": 4, "data": "zwei ä\n", "eof": True})
    done = eventually(
        lambda: found if (found := ask(url, "GET", f"{RUNS}/cat/output?offset=0&wait=5s").json)["eof"] else None
    )
    assert output(done) == "one\nuno\nzwei ä\n".encode()

    start(url, execId="s", shell="sleep 1000")
    assert ask(url, "POST", f"{RUNS}/s/signal", {"signal": 9}).status == 200
    ended = eventually(lambda: found if "signal" in (found := ask(url, "GET", f"{RUNS}/s").json) else None)
    assert (ended["signal"], ended["reason"]) == (9, "REASON_CANCELLED")
    assert status(ask(url, "POST", f"{RUNS}/s/signal", {"signal": 9})) == (400, "FAILED_PRECONDITION")
    start(url, execId="c", shell="sleep 1000")
    assert ask(url, "POST", f"{RUNS}/c/cancel").status == 200
    eventually(lambda: ask(url, "GET", f"{RUNS}/c").json["reason"] == "REASON_CANCELLED")


def test_the_credential_is_the_callers_own(url: str) -> None:
    """What the header says is passed on: one caller does not see another's, and nobody is let in by the gateway."""
    ann, bob = ({"Authorization": f"Bearer {name}"} for name in ("ann", "bob"))
    ask(url, "POST", RUNS, {"execId": "one", "shell": "true"}, ann)
    assert ask(url, "GET", f"{RUNS}/one", headers=ann).json["caller"] == "ann"
    assert status(ask(url, "GET", f"{RUNS}/one", headers=bob)) == (404, "NOT_FOUND")
    assert status(ask(url, "GET", f"{RUNS}?caller=ann", headers=bob)) == (403, "PERMISSION_DENIED")
    assert ask(url, "GET", f"{RUNS}?caller=*").json["executions"][0]["caller"] == "ann"
    answer = ask(url, "GET", "/v1/info", headers={"Authorization": "Basic eA=="})
    assert status(answer) == (401, "UNAUTHENTICATED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert ask(url, "GET", "/v1/info", headers=ann).json["caller"] == "ann"


BROKEN: list[tuple[str, str, Any]] = [
    ("POST", RUNS, {"shell": "true", "unknown": 1}),
    ("POST", RUNS, {"shell": 1}),
    ("POST", RUNS, {"shell": "true", "arguments": ["true"]}),
    ("POST", RUNS, {}),
    ("POST", RUNS, {"shell": "true", "timeout": "soon"}),
    ("POST", RUNS, {"shell": "true", "timeout": "-1s"}),
    ("POST", RUNS, {"shell": "true", "initialStdin": "not base64!"}),
    ("POST", f"{RUNS}?encoding=hex", {"shell": "true"}),
    ("GET", f"{RUNS}?unknown=1", None),
    ("GET", f"{RUNS}?pageSize=x", None),
    ("GET", f"{RUNS}?pageSize=1001", None),
    ("GET", f"{RUNS}?pageSize=1&pageSize=2", None),
    ("GET", f"{RUNS}?pageToken=x", None),
    ("GET", f"{RUNS}?label=x", None),
    ("GET", f"{RUNS}?states=RUNNING", None),
    ("GET", f"{RUNS}/one/output?offset=99", None),
    ("GET", f"{RUNS}/one/output?offset=-1", None),
    ("GET", f"{RUNS}/one/output?offset=0&tailLines=1", None),
    ("GET", f"{RUNS}/one/output?wait=61s", None),
    ("GET", f"{RUNS}/one/follow?offset=99", None),
    ("GET", f"{RUNS}/one/follow?heartbeatInterval=0.1s", None),
    ("POST", f"{RUNS}/one/signal", {"signal": 9, "execId": "two"}),
    ("POST", f"{RUNS}/one/signal", {"signal": 99}),
    ("GET", "/v1/info?x=1", None),
]


def test_what_breaks_the_contract_is_a_400(url: str) -> None:
    """With the name of the code, and a sentence."""
    start(url, execId="one", shell="true", wait="5s")
    for method, path, body in BROKEN:
        code, name = status(ask(url, method, path, body))
        assert code == 400, (path, body)
        assert name in ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"), (path, body)


def test_ids_that_cannot_be(url: str) -> None:
    """They look like any that is not there."""
    for name in ("nope", ".x", "a%20b", "%00", "x" * 200):
        assert status(ask(url, "GET", f"{RUNS}/{name}")) == (404, "NOT_FOUND")


def test_output_is_bounded_before_it_is_encoded(url: str) -> None:
    """A quarter of a MiB unless more is asked for, and the next offset says where it goes on."""
    start(url, execId="big", shell="head -c 3000000 /dev/zero", wait="20s")
    first = ask(url, "GET", f"{RUNS}/big/output?offset=0").json
    assert first["nextOffset"] == str(256 * 1024)
    assert len(output(first)) == 256 * 1024
    assert status(ask(url, "GET", f"{RUNS}/big/output?offset=0&maxBytes=9999999"))[0] == 400


def test_too_many_elements(url: str) -> None:
    """A list or an object with more than any field takes is refused by its name, before it becomes a message."""
    for request in ({"arguments": ["x"] * 200_000}, {"environmentVariables": {f"V{n}": "" for n in range(100_000)}}):
        answer = ask(url, "POST", RUNS, request)
        assert status(answer) == (400, "INVALID_ARGUMENT")
        (name, value), *_ = request.items()
        assert f"{name} has {len(value)} elements; at most 16384 are taken" in answer.json["error"]["message"]
    answer = ask(url, "POST", RUNS, {"arguments": ["true"], "environmentVariables": {f"V{n}": "" for n in range(5000)}})
    assert status(answer) == (400, "INVALID_ARGUMENT")
    assert "environment_variables: 5000 elements; at most 4096 are taken" in answer.json["error"]["message"]
