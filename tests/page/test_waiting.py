"""An execution that waits, and output that is not whole: the page says so, and where all is well it says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb
from rexec.v1 import execution_service_pb2 as api

from rexec_client.executions import is_ended
from tests.client.fakes import FakeServer, end, reply, snapshot
from tests.gateway.alone import Alone
from tests.gateway.http import ask
from tests.page.browser import PHONE, WIDE, Browser, Page
from tests.page.conftest import SHARED
from tests.waiting import eventually

FULL = "the log is full (67108864 of 67108864 bytes): no holder is attached, which keeps the output from offset 4096 on"
MOST = 1 << 16


class Stage:
    """The page of a server that has one execution, which the test sets: a real one's disk is seldom full."""

    def __init__(self, browser: Browser, directory: Path) -> None:
        self.execution = pb.Execution()
        self.server = FakeServer().__enter__()
        self.server.on("GetServerInfo", reply(api.GetServerInfoResponse(version="0", caller="dev", tail_lines=3)))
        self.server.on("List", lambda *_: api.ListResponse(executions=[self.execution]))
        self.server.on("Get", lambda *_: api.GetResponse(execution=self.execution))
        self.server.on("Poll", lambda *_: api.PollResponse(execution=self.execution))
        self.server.on("Follow", self._follow)
        # By this flag it is known as one that more than one test uses.
        self.gateway = Alone(directory, self.server.target, "--max-streams", SHARED[1])
        self._browser = browser

    def set_up(self) -> None:
        execution = pb.Execution(exec_id="one", caller="dev", shell="tar c /srv", state=pb.STATE_RUNNING)
        execution.log_end_offset = 100
        execution.create_time.GetCurrentTime()
        execution.start_time.GetCurrentTime()
        self.execution = execution

    def open(self) -> None:
        self._browser.driver.get("about:blank")
        self._browser.driver.get(f"{self.gateway.url}/#/dev/one")

    def poll(self) -> Any:
        return ask(self.gateway.url, "GET", "/api/poll/dev").json

    def close(self) -> None:
        self._browser.driver.get("about:blank")
        self.gateway.stop()
        self.server.__exit__()

    def _follow(self, _: Any, context: grpc.ServicerContext) -> Iterator[api.FollowResponse]:
        """Follow with heartbeats only, by which the gateway notices who is gone: what changes need not be told here."""
        yield snapshot(self.execution)
        if is_ended(self.execution):
            yield end(self.execution)
            return
        over = threading.Event()
        context.add_callback(over.set)
        while not over.wait(1):
            yield api.FollowResponse(heartbeat=api.Heartbeat())


@pytest.fixture(scope="module")
def one_stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(browser, tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


@pytest.fixture
def stage(page: Page, one_stage: Stage) -> Stage:
    """Provide the stage with an execution that runs, and the page, which is not open there yet."""
    # One that is left while it opens its key store may keep that shut for the next page of its origin.
    eventually(lambda: page.text("#caller") == f"as {page.caller}")
    one_stage.set_up()
    return one_stage


@pytest.mark.parametrize(
    ("waiting", "message", "words"),
    [
        (pb.WAITING_READER, FULL, "waiting for a reader"),
        (pb.WAITING_DISK, "the disk is full: output waits in the pipe", "waiting for the disk"),
    ],
    ids=["reader", "disk"],
)
def test_what_waits_says_for_what(page: Page, stage: Stage, waiting: pb.Waiting, message: str, words: str) -> None:
    """In the list and in what is open, in a word and with the server's own sentence, as soon as it begins and ends."""
    stage.open()
    eventually(lambda: page.state == "running")
    assert not page.sees("#waiting")
    assert not page.sees(".item-waiting")
    stage.execution.waiting, stage.execution.waiting_message = waiting, message
    eventually(lambda: page.state == words)
    assert page.text("#waiting") == message
    assert page.text(".item .outcome") == words
    assert page.text(".item-waiting") == message
    page.type("#search", "waiting")
    assert list(page.commands) == ["tar c /srv"]
    stage.execution.waiting, stage.execution.waiting_message = pb.WAITING_UNSPECIFIED, ""
    eventually(lambda: page.state == "running")
    assert not page.sees("#waiting")
    assert not page.sees(".item-waiting")
    assert not stage.poll().keys() & {"waiting", "waiting_message"}


def test_a_poll_says_what_the_command_waits_for(stage: Stage) -> None:
    """The JSON of a command that makes no progress has a word and a sentence."""
    stage.execution.waiting, stage.execution.waiting_message = pb.WAITING_DISK, "the disk is full"
    said = stage.poll()
    assert (said["status"], said["waiting"], said["waiting_message"]) == ("running", "disk", "the disk is full")


def test_a_command_that_waits_for_its_reader_is_shown_to_wait(page: Page) -> None:
    """Started so that it waits, and looked at by a page, which holds nothing: until its holder lets it go on."""
    output = api.OutputLimit(max_bytes=MOST, overflow=api.OVERFLOW_WAIT)
    page.exec(api.ExecRequest(exec_id="held", shell="seq 1 100000", output=output))
    page.open("held")
    eventually(lambda: page.state == "waiting for a reader")
    assert "no holder" in page.text("#waiting")
    assert page.text("#log-limit") == "waits at 65.5 KB"
    eventually(lambda: page.sees(".item .outcome") and page.text(".item .outcome") == "waiting for a reader")
    release = api.AcknowledgeRequest(exec_id="held", holder="me", release=True)
    page.server.stub.Acknowledge(release, metadata=(("authorization", f"Bearer {page.caller}"),))
    eventually(lambda: page.state == "exit 0")
    assert not page.sees("#waiting")


@pytest.mark.parametrize("waits", [True, False])
def test_the_limit_and_what_happens_there_are_shown(page: Page, stage: Stage, waits: bool) -> None:
    """Beside the log in brief, and in full among the details."""
    stage.execution.max_output_bytes, stage.execution.overflow_waits = 64_000_000, waits
    stage.execution.held_offset = 4096 if waits else 0
    stage.open()
    eventually(lambda: page.text("#log-limit") == ("waits at 64.0 MB" if waits else "keeps 64.0 MB"))
    page.click("#execution summary")
    facts = page.text("#facts")
    assert "64.0 MB of output; then it " + ("waits" if waits else "does not wait") in facts
    assert ("from byte 4,096 on" in facts) == waits


def test_pictures_of_one_that_waits(page: Page, stage: Stage, tmp_path: Path) -> None:
    """Light and dark, wide and phone: the sentence fits, and nothing is wider than the screen."""
    stage.execution.max_output_bytes, stage.execution.overflow_waits = 64_000_000, True
    stage.execution.waiting, stage.execution.waiting_message = pb.WAITING_READER, FULL
    for size in (WIDE, PHONE):
        for scheme in ("light", "dark"):
            page.browser.look(size, scheme)
            stage.open()
            eventually(lambda: page.text("#waiting") == FULL)
            (tmp_path / f"{size[0]}-{scheme}.png").write_bytes(page.driver.get_screenshot_as_png())
            assert page.run("return document.documentElement.scrollWidth") <= size[0]


def lost_its_oldest(page: Page, exec_id: str) -> None:
    """Shows an execution that wrote more than is kept of it."""
    page.exec(api.ExecRequest(exec_id=exec_id, shell="seq 1 100000", output=api.OutputLimit(max_bytes=MOST)), wait=20)
    page.open(exec_id)
    eventually(lambda: page.last_row_is("100000"))


def execution_of(page: Page, exec_id: str) -> pb.Execution:
    return page.server.stub.Get(api.GetRequest(exec_id=exec_id, caller=page.caller)).execution


def test_a_log_that_is_not_whole_says_so_above_it(page: Page) -> None:
    """A line stands there for as long as the log is shown, nothing calls it complete, and a copy is told apart."""
    lost_its_oldest(page, "torn")
    eventually(lambda: page.status.startswith("ended, not whole"))
    assert page.text("#missing").endswith("of the output are no longer kept: what is shown here is not whole.")
    page.run("navigator.clipboard.writeText = async () => {};")
    page.click("#copy")
    eventually(lambda: "not whole" in page.text("#toast"))


def test_a_log_that_is_whole_says_nothing(page: Page, browser: Browser) -> None:
    """No line above it, no word in what is copied or in the name of what is downloaded."""
    exec_id = page.start("seq 1000")
    eventually(lambda: page.status.startswith("complete"))
    assert not page.sees("#missing")
    page.run("navigator.clipboard.writeText = async () => {};")
    page.click("#copy")
    eventually(lambda: page.text("#toast") == "Copied all lines that are loaded")
    page.click("#download")
    eventually((browser.downloads / f"{exec_id}.log").exists)


def test_a_download_that_is_not_whole_says_so_in_its_name(page: Page, browser: Browser) -> None:
    """With how many bytes are missing; what is kept is in it to the byte."""
    lost_its_oldest(page, "short")
    missing = execution_of(page, "short").log_start_offset
    page.click("#download")
    file = browser.downloads / f"short.incomplete-{missing}-bytes-missing.log"
    written = "".join(f"{number}\n" for number in range(1, 100001)).encode()
    eventually(lambda: file.exists() and file.read_bytes() == written[missing:])
    eventually(lambda: page.text("#toast").endswith("that are no longer kept"))


def test_what_is_dropped_during_a_download_is_counted(page: Page, browser: Browser, tmp_path: Path) -> None:
    """The name of the file has what was there when it was asked for, and was gone when it was fetched."""
    go = tmp_path / "go"
    line = f"seq 1 100000; until [ -e {go} ]; do sleep 0.02; done; seq 1 100000; sleep 600"
    page.exec(api.ExecRequest(exec_id="racing", shell=line, output=api.OutputLimit(max_bytes=1 << 20)))
    page.open("racing")
    eventually(lambda: page.last_row_is("100000"))
    page.run("""const real = fetch;
        window.fetch = async (url, options) => {
          if (url.pathname.endsWith('/output')) await new Promise((go) => (window.letGo = go));
          return real(url, options);
        };""")
    page.click("#download")
    eventually(lambda: page.run("return Boolean(window.letGo)"))
    go.touch()
    written = "".join(f"{number}\n" for number in range(1, 100001)).encode() * 2
    eventually(lambda: execution_of(page, "racing").log_end_offset == len(written))
    missing = execution_of(page, "racing").log_start_offset
    page.run("window.letGo()")
    file = browser.downloads / f"racing.incomplete-{missing}-bytes-missing.log"
    eventually(lambda: file.exists() and missing + file.stat().st_size >= len(written) // 2)
    assert written[missing:].startswith(file.read_bytes())


def test_output_that_was_held_open_is_not_downloaded_as_complete(page: Page, browser: Browser) -> None:
    """The name says that its end may be missing."""
    request = api.ExecRequest(exec_id="open", shell="echo hi; sleep 600 &", leftovers=api.LEFTOVERS_KEEP)
    page.exec(request, wait=20)
    page.open("open")
    eventually(lambda: page.status.startswith("ended; another process"))
    page.click("#download")
    eventually((browser.downloads / "open.incomplete.log").exists)


def test_one_that_was_lost_is_not_said_to_have_written_nothing(page: Page, stage: Stage) -> None:
    """Of a lost one without output it is not known."""
    stage.execution.state, stage.execution.reason = pb.STATE_LOST, pb.REASON_LOST
    stage.execution.log_end_offset = 0
    stage.open()
    eventually(lambda: page.text("#log-empty") == "No output of it is kept.")
