"""A command from its start in the form to its end, through whatever happens in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rexec.v1 import execution_pb2 as wire
from rexec.v1 import execution_service_pb2 as api
from selenium.webdriver.common.keys import Keys

from tests.gateway.alone import Alone
from tests.page.browser import Page
from tests.servers import Server
from tests.waiting import eventually


def numbers(page: Page) -> list[int]:
    """The numbered lines that are drawn."""
    return [int(row) for row in page.rows if row.isdigit()]


def test_a_command_is_started_in_the_form_and_its_lines_arrive(page: Page, tmp_path: Path) -> None:
    """The line typed into the form runs, each line comes as it is written, and the end comes by itself."""
    go = tmp_path / "go"
    page.start(f"echo first; while [ ! -e {go} ]; do sleep 0.02; done; echo second; exit 3")
    eventually(lambda: list(page.rows) == ["first"])
    assert page.state == "running"
    assert page.status.startswith("live")
    go.touch()
    eventually(lambda: list(page.rows) == ["first", "second"])
    eventually(lambda: page.state == "exit 3")
    eventually(lambda: page.status.startswith("complete"))
    assert page.run("return document.activeElement.id") == "log"
    eventually(lambda: page.text(".item .outcome") == "exit 3")


def test_the_form_sends_all_that_it_asks_for(page: Page, tmp_path: Path) -> None:
    """Arguments, directory, environment, timeout and labels reach the server as they were typed."""
    page.click("#start")
    page.click("[name=kind][value=arguments]")
    page.type("[name=arguments]", "sh\n-c\necho \"$PWD $COLOR\" '*'")
    page.type("[name=directory]", str(tmp_path))
    page.type("[name=timeout]", "5m")
    page.type("[name=environment]", "COLOR=deep blue=green")
    page.type("[name=labels]", "team=tools\njob=42")
    page.click("#start-form [type=submit]")
    eventually(lambda: page.exec_id)
    eventually(lambda: list(page.rows) == [f"{tmp_path} deep blue=green *"])
    execution = page.server.stub.Poll(api.PollRequest(exec_id=page.exec_id, caller=page.caller)).execution
    assert list(execution.arguments) == ["sh", "-c", "echo \"$PWD $COLOR\" '*'"]
    assert dict(execution.labels) == {"team": "tools", "job": "42"}
    eventually(
        lambda: page.text(".item-labels") == "team=tools job=42" or page.text(".item-labels") == "job=42 team=tools"
    )


def test_the_form_says_what_is_wrong_and_keeps_what_was_typed(page: Page) -> None:
    """A refusal of the page or of the server stands in the form, in words, and nothing is lost."""
    page.click("#start")
    page.click("#start-form [type=submit]")
    eventually(lambda: "empty" in page.text("#start-error"))
    page.type("[name=shell]", "echo hi")
    page.type("[name=directory]", "not/absolute")
    page.click("#start-form [type=submit]")
    eventually(lambda: "directory" in page.text("#start-error"))
    assert page.find("[name=shell]").get_property("value") == "echo hi"
    page.browser.console()  # the browser itself logs each 400


def test_a_command_that_cannot_be_started_says_why(page: Page) -> None:
    """It is an execution with an error, told in full."""
    page.click("#start")
    page.click("[name=kind][value=arguments]")
    page.type("[name=arguments]", "/no/such/program")
    page.click("#start-form [type=submit]")
    eventually(lambda: page.state == "could not start")
    assert "ENOENT" in page.text("#problem")


def test_kill_9_of_the_server_loses_and_doubles_no_line(page: Page, gateway: Server, tmp_path: Path) -> None:
    """The server is killed twice under the page, and each line still comes exactly once and in order."""
    go = tmp_path / "go"
    counting = "import os,sys,time\nfor i in range(2000):\n print(i, flush=True)\n time.sleep(.002)\n"
    script = tmp_path / "count.py"
    script.write_text(counting + f"while not os.path.exists({str(go)!r}): time.sleep(.01)\nprint('over')\n")
    page.start(f"{sys.executable} {script}")
    for shown in (100, 500):
        eventually(lambda shown=shown: (numbers(page) or [0])[-1] > shown)
        gateway.kill()
        eventually(lambda: page.sees("#banner"))
        eventually(lambda: "Trying again" in page.status)
        gateway.start()
        eventually(lambda: page.status.startswith("live"), within=60)
        eventually(lambda: not page.sees("#banner"), within=60)
    go.touch()
    eventually(lambda: page.last_row_is("over"), within=60)
    eventually(lambda: page.state == "exit 0")
    assert page.status.endswith("2,001 lines")
    assert numbers(page) == list(range(2000 - len(numbers(page)), 2000))
    assert copied(page) == "".join(f"{i}\n" for i in range(2000)) + "over\n"


def copied(page: Page) -> str:
    """What the Copy button puts on the clipboard."""
    page.run("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; };")
    page.click("#copy")
    return str(eventually(lambda: page.run("return window.copied")))


def test_a_reload_shows_the_same_execution_again(page: Page) -> None:
    """What is open stands in the address."""
    page.start("seq 5")
    eventually(lambda: page.state == "exit 0")
    page.driver.refresh()
    eventually(lambda: list(page.rows) == list("12345"))


def test_cancel_asks_first_and_then_ends_it(page: Page) -> None:
    """Saying no changes nothing; saying yes ends the command, and the page says who ended it."""
    page.start("echo up; sleep 600")
    eventually(lambda: list(page.rows) == ["up"])
    page.click("#cancel")
    assert "sleep 600" in page.text("#confirm-command")
    page.press(Keys.ESCAPE)
    eventually(lambda: not page.sees("#confirm-dialog"))
    assert page.state == "running"
    page.click("#cancel")
    page.click("#confirm-yes")
    eventually(lambda: page.state == "cancelled")
    assert not page.sees("#cancel")
    eventually(lambda: page.text("#figures").startswith("SIGTERM"))


def test_a_signal_is_chosen_confirmed_and_delivered(page: Page) -> None:
    """The command gets the signal that was chosen, and goes on if it likes."""
    page.start("trap 'echo got it' USR1; echo up; while :; do sleep 0.05; done")
    eventually(lambda: list(page.rows) == ["up"])
    page.click("#signal")
    page.find("#signal-number").send_keys("SIGUSR1")
    page.click("#confirm-yes")
    eventually(lambda: "got it" in page.rows)
    assert page.state == "running"


def test_an_ended_execution_is_deleted_after_a_question(page: Page) -> None:
    """It goes from the list and from the server."""
    page.start("echo gone")
    eventually(lambda: page.state == "exit 0")
    page.click("#delete")
    page.click("#confirm-yes")
    eventually(lambda: page.exec_id == "")
    eventually(lambda: not page.commands)
    assert not page.server.stub.List(api.ListRequest(caller=page.caller)).executions


def test_the_same_command_is_started_again(page: Page) -> None:
    """The form is filled with what it was started with."""
    first = page.start("echo again")
    eventually(lambda: page.state == "exit 0")
    page.click("#again")
    assert page.find("[name=shell]").get_property("value") == "echo again"
    page.find("[name=shell]").send_keys(Keys.ENTER)
    eventually(lambda: page.exec_id not in ("", first))
    eventually(lambda: list(page.rows) == ["again"])


def test_stderr_looks_different(page: Page) -> None:
    """Its lines carry a class of their own and a mark beside them."""
    page.start("echo out; echo err >&2")
    eventually(lambda: len(page.rows) == 2)
    assert page.text(".log-row.stderr") == "err"
    assert page.text(".log-row.stdout") == "out"
    marks = (
        "return ['stdout', 'stderr'].map((one) => getComputedStyle(document.querySelector(`.${one}`)).backgroundColor)"
    )
    assert len(set(page.run(marks))) == 2


def test_an_execution_that_is_not_there_is_said_to_be_missing(page: Page) -> None:
    """A stale link says so, instead of waiting for ever."""
    page.open("no-such-execution")
    eventually(lambda: "no such execution" in page.text("#problem"))
    page.browser.console()  # the browser itself logs the 404


def test_a_command_started_elsewhere_appears_and_follows_without_reload(page: Page, gateway: Server) -> None:
    """The list keeps itself fresh, also with other callers' executions."""
    line = ["http", "--ignore-stdin", "POST", f"{gateway.gateway}/api/exec/alice", "cmd=echo from httpie"]
    subprocess.run([Path(sys.executable).parent / line[0], *line[1:]], check=True, capture_output=True)
    eventually(lambda: list(page.commands) == ["echo from httpie"])
    assert page.text(".item-caller") == "alice"
    page.click(".item")
    eventually(lambda: list(page.rows) == ["from httpie"])
    assert not page.sees("#delete")
    execution = gateway.stub.List(api.ListRequest(caller="alice")).executions[0]
    assert execution.state == wire.STATE_SUCCEEDED


def test_a_tab_that_is_left_lets_go_of_its_stream_and_misses_nothing(page: Page, tmp_path: Path) -> None:
    """Browsers open few connections to a host: one that nobody looks at holds none, and catches up when it is seen."""
    go = tmp_path / "go"
    page.run("""const real = fetch;
        window.fetch = (url, options) => {
          if (url.pathname.endsWith('/follow')) window.stream = options.signal;
          return real(url, options);
        };""")
    page.start(f"echo before; while [ ! -e {go} ]; do sleep 0.02; done; echo meanwhile; sleep 600")
    eventually(lambda: list(page.rows) == ["before"])
    request = api.PollRequest(exec_id=page.exec_id, caller=page.caller)
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    page.run(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", True)
    eventually(lambda: page.run("return window.stream.aborted"))
    go.touch()
    eventually(lambda: page.server.stub.Poll(request).execution.log_end_offset > len("before\n"))
    assert list(page.rows) == ["before"]
    page.run(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", False)
    eventually(lambda: list(page.rows) == ["before", "meanwhile"])


def test_a_network_that_was_away_is_told_and_survived(page: Page, tmp_path: Path) -> None:
    """The page says that the device is offline, and goes on where it was as soon as it is back."""
    go = tmp_path / "go"
    page.start(f"echo before; while [ ! -e {go} ]; do sleep 0.02; done; echo after")
    eventually(lambda: list(page.rows) == ["before"])
    page.browser.network(False)
    try:
        eventually(lambda: "offline" in page.text("#banner-text"))
        go.touch()
    finally:
        page.browser.network(True)
    eventually(lambda: list(page.rows) == ["before", "after"])
    eventually(lambda: page.state == "exit 0")
    eventually(lambda: not page.sees("#banner"))


def test_a_server_that_is_away_behind_its_gateway_is_told(page: Page, gateway: Server, tmp_path: Path) -> None:
    """The page tells a gateway without server from no gateway, and lines go on coming when the server is back."""
    go = tmp_path / "go"
    alone = Alone(tmp_path, gateway.target)
    try:
        page.driver.get(f"{alone.url}/")
        page.start(f"echo before; while [ ! -e {go} ]; do sleep 0.02; done; echo after")
        eventually(lambda: list(page.rows) == ["before"])
        gateway.kill()
        eventually(lambda: "The rexec server is away" in page.text("#banner-text"))
        gateway.start()
        go.touch()
        eventually(lambda: list(page.rows) == ["before", "after"], within=60)
        eventually(lambda: not page.sees("#banner"), within=60)
    finally:
        page.driver.get("about:blank")
        alone.stop()
