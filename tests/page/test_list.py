"""The list of executions: filter, search, keyboard, and whom the page acts as."""

from __future__ import annotations

import pytest
from rexec.v1 import execution_service_pb2 as api
from selenium.webdriver.common.keys import Keys

from tests.page.browser import PHONE, Page
from tests.servers import Server
from tests.waiting import eventually


@pytest.fixture
def four(page: Page) -> Page:
    """One running, one that succeeded, one that failed, one that died of a signal; with labels; newest first."""
    for line, labels in (
        ("kill -9 $$", {}),
        ("exit 7", {"team": "blue"}),
        ("echo fine", {"team": "green"}),
        ("echo still; sleep 600", {}),
    ):
        page.exec(api.ExecRequest(shell=line, labels=labels), wait=0 if "sleep" in line else 10)
    page.open()
    eventually(lambda: len(page.commands) == 4)
    return page


def test_the_newest_stand_first_with_their_states(four: Page) -> None:
    """Command, outcome, caller and age are told for each."""
    assert list(four.commands) == ["echo still; sleep 600", "echo fine", "exit 7", "kill -9 $$"]
    eventually(lambda: outcomes(four) == ["running", "exit 0", "exit 7", "SIGKILL"])
    assert four.text(".item-caller") == four.caller
    assert four.text(".item-age").endswith(("ago", "now"))


def outcomes(page: Page) -> list[str]:
    return page.run("return [...document.querySelectorAll('.outcome')].map((one) => one.textContent)")


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        ("running", ["echo still; sleep 600"]),
        ("succeeded", ["echo fine"]),
        ("failed", ["exit 7", "kill -9 $$"]),
        ("lost", []),
        ("all", ["echo still; sleep 600", "echo fine", "exit 7", "kill -9 $$"]),
    ],
)
def test_the_filter_shows_only_one_state(four: Page, state: str, commands: list[str]) -> None:
    """The button that is pressed says which."""
    four.click(f"[data-filter={state}]")
    eventually(lambda: list(four.commands) == commands)
    assert four.find(f"[data-filter={state}]").get_attribute("aria-pressed") == "true"
    if not commands:
        eventually(lambda: four.text("#list-note") == "None lost.")


def test_the_search_finds_commands_labels_and_outcomes(four: Page) -> None:
    """All words must be found, in any of them; nothing is asked of the case."""
    for words, found in (
        ("ECHO", ["echo still; sleep 600", "echo fine"]),
        ("echo fine", ["echo fine"]),
        ("team=blue", ["exit 7"]),
        ("sigkill", ["kill -9 $$"]),
        ("nowhere", []),
    ):
        four.type("#search", words)
        eventually(lambda found=found: list(four.commands) == found)
    assert "match" in four.text("#list-note")


def test_everything_can_be_done_with_the_keyboard(four: Page) -> None:
    """Search, move, open, start of the log, cancel, back, help and theme need no mouse."""
    four.press("/")
    assert four.run("return document.activeElement.id") == "search"
    four.press("echo", Keys.ESCAPE)
    eventually(lambda: len(four.commands) == 2)
    four.press("jj")
    assert four.run("return document.activeElement.querySelector('.item-command').textContent") == "echo fine"
    four.press("k", Keys.ENTER)
    eventually(lambda: list(four.rows) == ["still"])
    four.press("c")
    eventually(lambda: four.sees("#confirm-dialog"))
    assert four.run("return document.activeElement.id") == "confirm-yes"
    four.press(Keys.ENTER)
    eventually(lambda: four.state == "cancelled")
    four.press("?")
    eventually(lambda: four.sees("#help-dialog"))
    four.press(Keys.ESCAPE)
    eventually(lambda: not four.sees("#help-dialog"))
    four.press(Keys.ESCAPE)
    eventually(lambda: four.exec_id == "")
    assert "item" in four.run("return document.activeElement.className")
    four.press("n")
    eventually(lambda: four.sees("#start-dialog"))


def test_what_has_the_focus_can_be_seen(four: Page) -> None:
    """Each thing that Tab reaches has an outline."""
    reached = set()
    for _ in range(12):
        four.press(Keys.TAB)
        style, name = four.run(
            "const one = document.activeElement; return [getComputedStyle(one).outlineStyle, one.id || one.className];"
        )
        assert style != "none", name
        reached.add(name)
    assert {"search", "start", "caller", "theme", "help", "item"} <= reached


def test_every_control_has_a_name(four: Page) -> None:
    """A screen reader can say what each button, link and field is."""
    four.click(".item")
    nameless = """return [...document.querySelectorAll('button, a, input, select, textarea, [role]')].filter((one) => !(
        one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.textContent.trim()
        || one.labels?.length || one.getAttribute('role') === 'status' || one.getAttribute('role') === 'alert'
    )).map((one) => one.outerHTML)"""
    assert four.run(nameless) == []


def test_the_page_acts_as_the_caller_that_is_chosen(page: Page, gateway: Server) -> None:
    """Another caller sees only its own; what it starts is its own; and the choice survives a reload."""
    page.exec(api.ExecRequest(shell="echo dev"))
    eventually(lambda: list(page.commands) == ["echo dev"])
    page.click("#caller")
    page.type("#caller-name", "bob" + Keys.ENTER)
    eventually(lambda: page.text("#caller") == "as bob")
    eventually(lambda: not page.commands)
    page.start(": bob; echo mine")
    eventually(lambda: list(page.rows) == ["mine"])
    page.open()
    eventually(lambda: list(page.commands) == [": bob; echo mine"])
    assert [one.shell for one in gateway.stub.List(api.ListRequest(caller="bob")).executions] == [": bob; echo mine"]


def test_what_is_further_down_the_list_is_found(page: Page) -> None:
    """The list begins with a hundred, and goes back as far as one asks."""
    for number in range(130):
        page.exec(api.ExecRequest(arguments=["true", f"word{number}"]))
    page.open()
    eventually(lambda: len(page.commands) == 100, within=60)
    page.type("#search", "word3")
    eventually(lambda: len(page.commands) == 11, within=60)
    assert page.commands[-1] == "true word3"


def test_on_a_phone_one_thing_is_seen_at_a_time(four: Page) -> None:
    """The list, or what was opened in it with a way back; nothing is wider than the screen."""
    four.browser.look(PHONE)
    assert four.sees("#list")
    assert not four.sees("#detail")
    four.click(".item")
    eventually(lambda: list(four.rows) == ["still"])
    assert not four.sees("#list")
    assert four.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert all(four.sees(f"#{name}") for name in ("cancel", "signal", "again", "copy", "download", "stay"))
    right = (
        "return Math.max(...[...document.querySelectorAll('button')].map((one) => one.getBoundingClientRect().right))"
    )
    assert four.run(right) <= PHONE[0]
    four.click("#back")
    eventually(lambda: four.sees("#list"))
