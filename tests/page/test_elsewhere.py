"""A page elsewhere: whatever it tries in a real browser, it starts nothing and reads nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rexec.v1 import execution_service_pb2 as api

from tests.page.browser import ELSEWHERE, REBOUND, Page
from tests.page.conftest import SHARED
from tests.servers import Server
from tests.waiting import eventually

# Tries a request, and gives its status and text; or "opaque", or "refused" when the browser gives nothing to the page.
FETCH = """
const [address, options, done] = arguments;
fetch(address, options).then(
  async (answer) => done(answer.type === 'opaque' ? 'opaque' : [answer.status, await answer.text()]),
  () => done('refused'));
"""
COMMAND = '{"cmd": "echo stolen", "shell": "echo stolen"}'


class _Blank(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        """Tells nobody."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all of these tests, where everybody may see everything."""
    server = Server(tmp_path_factory.mktemp("guarded") / "state", "--gateway", "127.0.0.1:0", *SHARED)
    yield server
    server.close()


@pytest.fixture
def elsewhere(page: Page, gateway: Server) -> Iterator[Page]:
    """The browser on a page of another site, beside a gateway that has one execution to be read."""
    page.exec(api.ExecRequest(exec_id="secret", shell="echo secret"), wait=10)
    site = ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    site.daemon_threads = True
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    page.driver.get(f"http://{ELSEWHERE}:{site.server_port}/")
    assert page.driver.title == "elsewhere"
    yield page
    page.driver.get("about:blank")
    page.browser.console()  # full of refusals, as it should be
    site.shutdown()
    thread.join()
    site.server_close()


def started(server: Server, line: str) -> bool:
    """Whether anybody has started this command."""
    return line in [one.shell for one in server.stub.List(api.ListRequest(caller="*")).executions]


def refusals(server: Server) -> int:
    """How many requests reached the gateway and were refused by it."""
    return sum(any(f" {status} " in line for status in (400, 403, 405, 415)) for line in server.log.splitlines())


def test_the_page_itself_may(page: Page, gateway: Server) -> None:
    """The same requests from the page's own origin work: what the tests below see refused is not refused to all."""
    headers = {"Content-Type": "application/json"}
    options = {"method": "POST", "headers": headers, "body": '{"cmd": "echo mine"}'}
    status, _ = page.driver.execute_async_script(FETCH, f"{gateway.gateway}/api/exec/me", options)
    assert status == 200
    assert started(gateway, "echo mine")


def test_the_policy_lets_the_page_run_nothing_but_its_own_files(page: Page) -> None:
    """Even if text became markup one day: no inline script, no inline style, no other host, no form, no frame."""
    tries = """
    const done = arguments[0], found = new Set();
    document.addEventListener('securitypolicyviolation', ({effectiveDirective}) => {
      found.add(effectiveDirective);
      if (found.size === 5) done([...found].sort());
    });
    const add = (tag, what) => document.body.append(Object.assign(document.createElement(tag), what));
    add('script', {textContent: 'window.ran = 1'});
    add('style', {textContent: '* { color: red }'});
    add('img', {src: 'http://elsewhere.test/x.png'});
    add('iframe', {src: 'http://elsewhere.test/'});
    fetch('http://elsewhere.test/').catch(() => {});
    """
    found = page.driver.execute_async_script(tries)
    assert found == ["connect-src", "frame-src", "img-src", "script-src-elem", "style-src-elem"]
    assert page.run("return window.ran") is None
    page.browser.console()  # full of refusals, as it should be


@pytest.mark.parametrize("path", ["/api/exec/me", "/v1/executions"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_t_gw_05_another_origin_starts_nothing(
    elsewhere: Page, gateway: Server, path: str, kind: str, mode: str
) -> None:
    """Neither with a simple request that needs no permission, nor with one that asks for it."""
    options = {"method": "POST", "headers": {"Content-Type": kind}, "body": COMMAND, "mode": mode}
    before = refusals(gateway)
    answer = elsewhere.driver.execute_async_script(FETCH, gateway.gateway + path, options)
    assert answer in ("refused", "opaque")
    assert refusals(gateway) > before
    assert not started(gateway, "echo stolen")


@pytest.mark.parametrize("path", ["/v1/executions", "/v1/executions/secret/output", "/v1/info", "/api/poll/me", "/"])
def test_another_origin_reads_nothing(elsewhere: Page, gateway: Server, path: str) -> None:
    """The browser gives the other page no byte of any answer."""
    before = refusals(gateway)
    assert elsewhere.driver.execute_async_script(FETCH, gateway.gateway + path, {}) == "refused"
    no_cors = elsewhere.driver.execute_async_script(FETCH, gateway.gateway + path, {"mode": "no-cors"})
    assert no_cors in ("refused", "opaque")
    assert refusals(gateway) >= before + 2


def test_t_gw_05_a_form_of_another_origin_starts_nothing(elsewhere: Page, gateway: Server) -> None:
    """The oldest way across origins: a form whose text happens to be JSON, and one that is a form."""
    for kind, name in (("text/plain", '{"cmd": "echo stolen", "x": "'), ("application/x-www-form-urlencoded", "cmd")):
        here = elsewhere.driver.current_url
        elsewhere.run(
            """const form = document.body.appendChild(document.createElement('form'));
            Object.assign(form, {method: 'POST', action: arguments[0], enctype: arguments[1]});
            const field = form.appendChild(document.createElement('input'));
            Object.assign(field, {name: arguments[2], value: '"}'});
            form.submit();""",
            f"{gateway.gateway}/api/exec/me", kind, name,
        )  # fmt: skip
        eventually(lambda: elsewhere.driver.current_url.startswith(gateway.gateway))
        assert '"status":"error"' in elsewhere.run("return document.body.innerText").replace(" ", "")
        elsewhere.driver.get(here)
    assert not started(gateway, "echo stolen")


def test_t_gw_05_another_origin_can_neither_frame_nor_stream_nor_load_it(elsewhere: Page, gateway: Server) -> None:
    """Frames, event streams, images and scripts get nothing either."""
    tries = """
    const [address, done] = arguments, found = {};
    const finish = (name, what) => { found[name] = what; if (Object.keys(found).length === 3) done(found); };
    const stream = new EventSource(`${address}/v1/executions/secret/follow`);
    stream.onopen = () => finish('stream', 'opened');
    stream.onerror = () => { stream.close(); finish('stream', 'refused'); };
    for (const [tag, path] of [['script', '/static/app.js'], ['img', '/static/favicon.svg']]) {
      const one = document.createElement(tag);
      one.onload = () => finish(tag, 'loaded');
      one.onerror = () => finish(tag, 'refused');
      one.src = address + path;
      document.body.append(one);
    }
    """
    found = elsewhere.driver.execute_async_script(tries, gateway.gateway)
    assert found == {"stream": "refused", "script": "refused", "img": "refused"}
    framed = """
    const [address, done] = arguments;
    const frame = document.createElement('iframe');
    frame.onload = () => setTimeout(() => done(frame.contentDocument === null));
    frame.src = address;
    document.body.append(frame);
    """
    assert elsewhere.driver.execute_async_script(framed, gateway.gateway)
    console = " ".join(elsewhere.browser.console())
    assert "frame-ancestors" in console or "X-Frame-Options" in console or "403" in console


def test_t_gw_05_a_rebound_name_reaches_nothing(page: Page, gateway: Server) -> None:
    """A name of somebody else that resolves to us is the same origin to the browser, and still refused."""
    page.exec(api.ExecRequest(exec_id="secret", shell="echo secret"), wait=10)
    address = f"http://{REBOUND}:{gateway.gateway.rpartition(':')[2]}"
    page.driver.get(f"{address}/")
    assert "Host" in page.run("return document.body.innerText")
    headers = {"Content-Type": "application/json"}
    for path, options in (
        ("/v1/executions", {}),
        ("/v1/executions/secret/output", {}),
        ("/api/poll/me", {}),
        ("/api/exec/me", {"method": "POST", "headers": headers, "body": COMMAND}),
        ("/v1/executions", {"method": "POST", "headers": headers, "body": '{"shell": "echo stolen"}'}),
    ):
        status, text = page.driver.execute_async_script(FETCH, address + path, options)
        assert status == 400
        assert "secret" not in text
    assert not started(gateway, "echo stolen")
    page.browser.console()  # the browser itself logs each 400
