"""Fixtures: one browser and one server for the tests of the page; each test is a caller of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.page.browser import CHROMEDRIVER, CHROMIUM, WIDE, Browser, Page
from tests.servers import Server
from tests.waiting import eventually

# What the browser itself logs when a server is away, or refuses to list everybody's: no mistakes of the page.
_EXPECTED = (
    "net::ERR_CONNECTION",
    "net::ERR_INCOMPLETE",
    "net::ERR_EMPTY_RESPONSE",
    "status of 503",
    "net::ERR_INTERNET",
    "caller=*",
)
# By this flag a server is known that more than one test uses.
SHARED = ("--max-running", "1001")
_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; starting it for each test would take longer than the tests."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("the page's tests need chromium and chromedriver: apt-get install chromium chromium-driver")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a gateway, for all tests that do it no harm."""
    server = Server(tmp_path_factory.mktemp("page") / "state", "--gateway", "127.0.0.1:0", *SHARED)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """As for all tests, but what the package shares outlives each; and browsers start processes as they like."""
    me = psutil.Process()
    yield
    eventually(lambda: all(map(_is_shared, me.children())), within=60)


def _is_shared(process: psutil.Process) -> bool:
    try:
        return any(word in (SHARED[1], CHROMEDRIVER) for word in process.cmdline())
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def gateway(start_server: Callable[..., Server]) -> Server:
    """A server with a gateway, for this test alone."""
    return start_server("--gateway", "127.0.0.1:0")


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """The page, open on a wide light screen. Whatever its console complains of fails the test.

    A test that asks for `gateway` too gets a page of that server, as an operator; others are callers like any other.
    """
    if "gateway" in request.fixturenames:
        page = Page(browser, request.getfixturevalue("gateway"))
    else:
        page = Page(browser, request.getfixturevalue("shared"), f"tester-{next(_numbers)}")
    browser.look(WIDE)
    page.driver.get(f"{page.server.gateway}/static/favicon.svg")  # of the page's origin, and runs nothing
    page.run("localStorage.clear(); if (arguments[0]) localStorage.setItem('rexec.caller', arguments[0])", page.caller)
    browser.console()
    yield page.open()
    complaints = [line for line in browser.console() if not any(expected in line for expected in _EXPECTED)]
    browser.driver.get("about:blank")
    assert complaints == []
