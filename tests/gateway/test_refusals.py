"""What is refused, how, and that nothing ran."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.http import Answer, ask
from tests.servers import Server

Start = Callable[..., Server]
JSON = {"Content-Type": "application/json"}
EXEC = "/api/exec/me"
GOOD = {"cmd": "touch ran"}


def refused(answer: Answer, status: int) -> str:
    """The sentence of a refusal that is as it should be."""
    found = answer.json
    assert answer.status == status, found
    sentence = found["error"] if isinstance(found["error"], str) else found["error"]["message"]
    assert isinstance(sentence, str)
    assert len(sentence) > 10
    assert "Traceback" not in sentence
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert "Location" not in answer.headers
    return sentence


@pytest.fixture
def target(with_gateway: Start, tmp_path: Any) -> Any:
    """A gateway whose commands would leave a file: none may."""
    server = with_gateway(cwd=tmp_path)
    yield server.gateway
    assert not (tmp_path / "ran").exists()
    assert ask(server.gateway, "GET", "/api/poll/me").json == {"mode": "poll", "status": "finished"}


def test_t_gw_07_bodies_that_are_not_as_they_should_be(target: str) -> None:
    """Each is a 4xx with a sentence that helps, and the mode that was asked."""
    bodies: list[tuple[Any, int]] = [
        (b"", 400),
        (b"{", 400),
        (b'{"cmd": "touch ran"', 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"touch ran"', 400),
        (b'{"cmd": NaN}', 400),
        (b'{"cmd": "touch ran", "timeout": Infinity}', 400),
        (b'{"cmd": "touch ran", "timeout": 1e999}', 400),
        (b'{"cmd": "touch ran", "timeout": ' + b"9" * 5000 + b"}", 400),
        (b'{"cmd": "touch ran", "cmd": "touch ran"}', 400),
        (b'{"cmd": "touch ran", "env": {"A": "1", "A": "2"}}', 400),
        (b"[" * 60_000, 400),
        (b"[" * 100_000, 413),
        (b'{"cmd":' * 8_000, 400),
        (b'{"cmd": "\xff"}', 400),
        (b'{"cmd": "\\ud800"}', 400),
        (b'{"cmd": "touch ran\\u0000"}', 400),
        ({}, 400),
        ({"cmd": ""}, 400),
        ({"cmd": "  \n"}, 400),
        ({"cmd": None}, 400),
        ({"cmd": ["touch", "ran"]}, 400),
        ({"cmd": 5}, 400),
        ({**GOOD, "timeout": "5"}, 400),
        ({**GOOD, "timeout": True}, 400),
        ({**GOOD, "timeout": 0}, 400),
        ({**GOOD, "timeout": -1}, 400),
        ({**GOOD, "timeout": 1e12}, 400),
        ({**GOOD, "cwd": 1}, 400),
        ({**GOOD, "cwd": "relative"}, 400),
        ({**GOOD, "env": []}, 400),
        ({**GOOD, "env": {"A": 1}}, 400),
        ({**GOOD, "env": {"A=B": "1"}}, 400),
        ({**GOOD, "tiemout": 5}, 400),
        ({"cmd": "x" * 65_536}, 413),
    ]
    for body, status in bodies:
        answer = ask(target, "POST", EXEC, body, JSON)
        refused(answer, status)
        assert (answer.json["mode"], answer.json["status"]) == ("exec", "error"), body


def test_t_gw_03_only_json_starts_anything(target: str) -> None:
    """The types that browsers send across origins without asking are no JSON, whatever they contain."""
    types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json",
             "text/plain; application/json", "application/jsonp", "application/json-seq"]  # fmt: skip
    for kind in types:
        refused(ask(target, "POST", EXEC, b'{"cmd": "touch ran"}', {"Content-Type": kind}), 415)
    refused(ask(target, "POST", "/v1/executions", b'{"shell": "touch ran"}', {"Content-Type": "text/plain"}), 415)


def test_t_gw_06_methods_and_modes(target: str) -> None:
    """An unknown mode is 404; a known one with another method is 405 and says with which."""
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = ask(target, method, EXEC, GOOD, {"X-HTTP-Method-Override": "POST"})
        refused(answer, 405)
        assert answer.headers["Allow"] == "POST"
    assert ask(target, "HEAD", "/api/poll/me").status == 405
    assert ask(target, "POST", "/api/follow/me", {}).headers["Allow"] == "GET"
    assert "exec" in refused(ask(target, "POST", "/api/run/me", GOOD), 404)
    for path in ("/api", "/api/", "/api/exec", "/api/exec/", "/api/exec/me/", "/api/exec/me/x", "/v2/info", "/x"):
        refused(ask(target, "POST", path, GOOD), 404)


def test_t_gw_09_odd_characters_in_the_uuid(target: str) -> None:
    """They are refused with a sentence, wherever they are told apart first."""
    for name in (
        "a%20b",
        "%00",
        "..",
        ".hidden",
        "%2e%2e",
        "a;b",
        "%C3%A4",
        "%ff",
        "a%0ab",
        "x" * 5000,
        "a%3Cb",
        "'",
        "a%2fb",
        "a%2Fb",
        "a;b=c",
        "a%3Bb",
        "a%00",
        "%252e%252e",
        "..a",
    ):
        refused(ask(target, "POST", f"/api/exec/{name}", GOOD), 400)
    for path in (
        "/api/../exec/me",
        "/api/exec/../me",
        "/api/exec/me/..",
        "/api/%2e%2e/me",
        "/api/exec//me",
        "/api/./me",
    ):
        refused(ask(target, "POST", path, GOOD), 404)
    # Longer than a name may be in --dev: that is the server's to say.
    refused(ask(target, "POST", f"/api/exec/{'x' * 300}", GOOD), 401)


def test_t_gw_02_a_page_of_another_origin_is_refused(target: str) -> None:
    """Whatever a browser says of where a request comes from must be us."""
    here = urlsplit(target).netloc
    foreign = [
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        f"http://{here}.evil.example",
        "https://localhost:1",
        "",
    ]
    for origin in foreign:
        refused(ask(target, "POST", EXEC, GOOD, {"Origin": origin}), 403)
        refused(ask(target, "GET", "/v1/executions", headers={"Origin": origin}), 403)
    for site in ("cross-site", "same-site", "something"):
        refused(ask(target, "POST", EXEC, GOOD, {"Sec-Fetch-Site": site}), 403)
        refused(ask(target, "GET", "/api/poll/me", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}), 403)
    own = {"Origin": f"http://{here}", "Sec-Fetch-Site": "same-origin"}
    assert ask(target, "GET", "/v1/info", headers=own).status == 200


def test_a_link_from_elsewhere_leads_to_the_page(url: str) -> None:
    """The page says nothing of anybody; what it shows it asks for itself."""
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = ask(url, "GET", "/", headers=linked)
    assert answer.status == 200
    assert answer.headers.get_content_type() == "text/html"
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_t_gw_01_a_rebound_host_name_is_refused(target: str) -> None:
    """A page that has its own name point here sends that name."""
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1:80.evil.com", "localhost.evil.example", "0.0.0.0",
                 "localhost:3000@evil.example", "127.0.0.2", "[::2]", "localhost.", ""):  # fmt: skip
        assert "--name" in refused(ask(target, "POST", EXEC, GOOD, {"Host": host}), 400)
    post = b"POST /api/exec/me HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 20\r\n%s\r\n"
    for headers in (b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: localhost\r\n evil.example\r\n"):
        assert b" 400 " in _raw(target, post % headers + b'{"cmd": "touch ran"}')[0]
    for host in ("localhost", "127.0.0.1:8080", "[::1]:3000", "LOCALHOST"):
        assert ask(target, "GET", "/v1/info", headers={"Host": host}).status == 200


def test_t_gw_04_a_preflight_allows_nothing(target: str) -> None:
    """A browser that asks what another origin may do is told nothing."""
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    refused(ask(target, "OPTIONS", EXEC, headers=asks), 403)
    refused(ask(target, "OPTIONS", "/v1/executions"), 405)


def test_what_is_hardly_http_is_answered_in_json(target: str) -> None:
    """Also the errors that no application sees."""
    host = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    for request in (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        host + b"bad\r\n\r\n",
        host + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    ):
        head, body = _raw(target, request)
        assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505", b"HTTP/1.0 4")), head
        assert b"application/json" in head
        assert b'"error"' in body


def test_t_gw_08_each_answer_is_kept_by_nobody_and_says_nothing_to_the_next_site(target: str) -> None:
    """Good answers, refusals, and what the web server refuses by itself: no-store, no-referrer, and no redirect."""
    paths = ["/", "/api/poll/me", "/api/poll/me/", "//api/poll/me", "/v1/executions", "/v1/nothing", "/openapi.json"]
    for path in paths:
        answer = ask(target, "GET", path)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.status < 300 or answer.status >= 400
        assert "Location" not in answer.headers
    for path in paths[1:6]:
        assert ask(target, "GET", path).headers["Cache-Control"] == "no-store"
    head, _ = _raw(target, b"GET /api/poll/me HTTP/9.9\r\n\r\n")
    assert b"Cache-Control: no-store\r\nReferrer-Policy: no-referrer" in head


def test_a_header_that_is_given_twice_or_in_disguise(target: str) -> None:
    """Two readers would read two things: what must be one is one, and an underscore is no hyphen."""
    head = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"
    for name in (b"Authorization", b"Origin", b"Content-Type", b"Content-Length", b"Last-Event-ID"):
        answer, body = _raw(target, head % (name + b": 1\r\n" + name.lower() + b": 1\r\n"))
        assert b" 400 " in answer, name
        assert b"more than once" in body
    assert b" 403 " in _raw(target, head % b"Sec-Fetch-Site: cross-site\r\nSec_Fetch_Site: none\r\n")[0]
    assert b" 200 " in _raw(target, head % b"Sec_Fetch_Site: cross-site\r\n")[0]


def test_a_body_in_chunks_is_read_and_bounded(target: str) -> None:
    """Without a length, too."""
    head = b"POST /api/echo/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 200 " in _raw(target, head + b"2\r\n{}\r\n0\r\n\r\n")[0]
    assert b" 400 " in _raw(target, head + b"1\r\n{\r\n0\r\n\r\n")[0]
    large = b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(20))
    assert b" 413 " in _raw(target, head + large + b"0\r\n\r\n")[0]


def _raw(url: str, request: bytes) -> tuple[bytes, bytes]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as sock:
        answer = b""
        with suppress(ConnectionError):  # it may refuse before it has read all that is sent
            sock.sendall(request)
            while data := sock.recv(65536):
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def test_a_body_beyond_all_bounds_is_not_read(target: str) -> None:
    """A length that no mode takes is refused at once, with the mode that was asked."""
    head = b"POST /api/exec/me HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer, body = _raw(target, head + b"Content-Length: 99999999999\r\n\r\n{")
    assert b" 413 " in answer
    assert b'"mode": "exec"' in body
