"""The log: much of it, coloured, hostile, copied and downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

from rexec.v1 import execution_service_pb2 as api
from selenium.webdriver.common.keys import Keys

from tests.page.browser import Browser, Page
from tests.waiting import eventually

MOST_ELEMENTS = 400  # in the log, however long it is
# Seconds of processor time that the page's main thread takes for one step of scrolling, on average. Not by the clock:
# other tests may have both cores.
MOST_SECONDS_A_STEP = 0.05
STEPS = 60

# Scrolls through the whole log, with a picture for each step, and gives the most elements there were.
SCROLL_THROUGH = """
const done = arguments[arguments.length - 1];
const log = document.getElementById('log');
const steps = arguments[0];
let step = 0, most = 0;
const next = () => {
  most = Math.max(most, log.getElementsByTagName('*').length);
  if (step === steps) return done(most);
  log.scrollTop = (log.scrollHeight - log.clientHeight) * (step++ / steps);
  requestAnimationFrame(next);
};
requestAnimationFrame(next);
"""


def test_a_hundred_thousand_lines_stay_responsive(page: Page) -> None:
    """All arrive, few are elements at any time, and scrolling through them never stalls."""
    page.start(r"seq 1 100000 | sed 's/.*/line \x1b[32m&\x1b[0m/'")
    eventually(lambda: page.status.endswith("100,000 lines"), within=60)
    eventually(lambda: page.last_row_is("line 100000"))
    before = page.browser.thread_seconds()
    assert page.driver.execute_async_script(SCROLL_THROUGH, STEPS) < MOST_ELEMENTS
    assert page.browser.thread_seconds() - before < STEPS * MOST_SECONDS_A_STEP
    page.press("g")
    eventually(lambda: page.rows[0] == "line 1")
    assert not page.sees("#stay[aria-pressed=true]")
    page.press("G")
    eventually(lambda: page.last_row_is("line 100000"))


def test_who_scrolls_up_stays_there_while_more_comes(page: Page, tmp_path: Path) -> None:
    """New output does not tear the reader away, and one press of a button jumps to the end and stays."""
    go = tmp_path / "go"
    page.start(f"seq 1 1000; while [ ! -e {go} ]; do sleep 0.02; done; seq 1001 3000; sleep 600")
    eventually(lambda: page.last_row_is("1000"))
    page.find("#log").send_keys(Keys.HOME)
    eventually(lambda: page.rows[0] == "1")
    eventually(lambda: page.sees("#to-end"))
    go.touch()
    eventually(lambda: page.status.endswith("3,000 lines"))
    assert page.rows[0] == "1"
    page.click("#to-end")
    eventually(lambda: page.last_row_is("3000"))
    assert not page.sees("#to-end")


HOSTILE = r"""
<script>window.ran = 1; alert(1)</script>
<img src=x onerror="window.ran = 1">
<a href="javascript:window.ran = 1">x</a>&lt;b&gt;</div></pre><style>*{display:none}</style>
""".strip()


def test_markup_in_output_and_command_is_shown_and_not_run(page: Page, tmp_path: Path) -> None:
    """It is text in the log, in the list, in a dialog and after a reload; nothing of it becomes an element."""
    (tmp_path / "hostile").write_text(HOSTILE + "\n")
    line = f"cat {tmp_path}/hostile; : '<img src=x onerror=window.ran=1>'; sleep 600"
    page.start(line)
    eventually(lambda: list(page.rows) == HOSTILE.splitlines())
    assert page.text("#command") == line
    page.click("#cancel")
    assert page.text("#confirm-command") == line
    page.press(Keys.ESCAPE)
    page.driver.refresh()
    eventually(lambda: list(page.rows) == HOSTILE.splitlines())
    assert page.run("return window.ran") is None
    assert (
        page.run("return document.querySelectorAll('#log script, #log img, #log a, #list img, #command img').length")
        == 0
    )


def test_colours_and_styles_are_shown(page: Page) -> None:
    """Sixteen, 256 and true colours, bold, underline and inverse look as they were asked for, without inline styles."""
    page.start(
        r"printf '\033[31mred\033[0m \033[1;4mbold\033[0m \033[38;5;208morange\033[0m \033[48;2;1;2;3mdeep\033[0m\n'"
    )
    eventually(lambda: list(page.rows) == ["red bold orange deep"])
    style = """const spans = [...document.querySelectorAll('.log-row span')];
        const span = spans.find((one) => one.textContent === arguments[0]);
        return getComputedStyle(span)[arguments[1]];"""
    assert page.run(style, "red", "color") == "rgb(184, 37, 43)"
    assert page.run(style, "bold", "fontWeight") == "700"
    assert "underline" in page.run(style, "bold", "textDecorationLine")
    assert page.run(style, "orange", "color") == "rgb(255, 135, 0)"
    assert page.run(style, "deep", "backgroundColor") == "rgb(1, 2, 3)"


def test_a_progress_bar_is_one_line_that_changes(page: Page, tmp_path: Path) -> None:
    """A carriage return writes over the line, also when it was shown already."""
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.02; done"
    page.start(rf"""printf 'start\n 10%%'; {wait}; printf '\r 50%%\r100%%\033[K\ndone\n'""")
    eventually(lambda: list(page.rows) == ["start", " 10%"])
    go.touch()
    eventually(lambda: list(page.rows) == ["start", "100%", "done"])


def test_the_whole_log_is_downloaded_byte_by_byte(page: Page, browser: Browser, tmp_path: Path) -> None:
    """Every byte as the command wrote it, also those that are no text, and more than one answer can hold."""
    script = tmp_path / "write.py"
    script.write_text("import sys\nfor i in range(6000): sys.stdout.buffer.write(bytes(range(256)) + b'%d' % i)\n")
    exec_id = page.start(f"{sys.executable} {script}")
    eventually(lambda: page.state == "exit 0")
    page.click("#download")
    file = browser.downloads / f"{exec_id}.log"
    expected = b"".join(bytes(range(256)) + b"%d" % i for i in range(6000))
    eventually(lambda: file.exists() and file.read_bytes() == expected)


def test_a_log_that_lost_its_oldest_output_says_so(page: Page) -> None:
    """What is no longer kept is told where it is missing, never silently left out."""
    limit = api.OutputLimit(max_bytes=1 << 20)
    page.exec(api.ExecRequest(exec_id="long", shell="seq 1 1000000", output=limit), wait=20)
    page.open("long")
    eventually(lambda: page.last_row_is("1000000"))
    page.press("g")
    eventually(lambda: page.rows[0].endswith("of output are no longer kept."))
    assert page.find(".log-row.stdout").get_attribute("data-number") is None
    page.click("#execution summary")
    assert "no longer kept" in page.text("#facts")


def test_a_log_that_is_too_long_for_a_browser_is_shown_from_its_end(page: Page) -> None:
    """Of millions of lines the newest are fetched, fewer are kept, and the page says what it left out."""
    page.exec(api.ExecRequest(exec_id="huge", shell="seq 1 3000000"), wait=20)
    page.open("huge")
    eventually(lambda: page.last_row_is("3000000"), within=60)
    assert page.status.endswith("are here")
    assert page.run("return document.querySelectorAll('#log *').length") < MOST_ELEMENTS
    page.press("g")
    eventually(lambda: page.sees("#to-end"))
    assert int(page.text("#to-end").split("·")[1].split()[0].replace(",", "")) < 200_000


def test_times_are_shown_when_asked_for(page: Page) -> None:
    """Each line has the time at which it was read."""
    page.start("echo now")
    eventually(lambda: list(page.rows) == ["now"])
    page.click("#times")
    margin = page.run("return getComputedStyle(document.querySelector('.log-row'), '::before').content")
    assert margin.count(":") == 2
