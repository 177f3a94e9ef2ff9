"""What the page looks like: pictures for people, and what can be checked of light, dark, wide and narrow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rexec.v1 import execution_service_pb2 as api

from tests.page.browser import PHONE, WIDE, Page
from tests.servers import Server
from tests.waiting import eventually

BUILD = r"""
printf '\033[1mBuilding rexec\033[0m  target \033[36mrelease\033[0m\n'
for name in core runner shim spool index policy rpc gateway; do
  printf '  \033[32m✓\033[0m %-10s \033[2m%4d ms\033[0m\n' $name $((${#name} * 137))
done
sleep 0.05
echo 'warning: unused parameter “grace” in shim/ending.c:118' >&2
echo 'warning: 1 more in shim/drain.c' >&2
sleep 0.05
printf '  \033[33m!\033[0m 2 warnings, \033[38;5;208msee above\033[0m\n'
printf '  \033[7m TEST \033[0m 412 passed, \033[31m1 failed\033[0m, \033[4m3 skipped\033[0m\n'
echo '  <script>alert("output is text, never markup")</script>'
for part in 10 35 60 72; do
  printf '\r  packing  [%-24s] %3d%%' $(printf '#%.0s' $(seq $((part / 4)))) $part; sleep 0.02
done
exec sleep 600
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the pictures go: REXEC_PICTURES=docs/images renews those of the documentation."""
    place = Path(os.environ.get("REXEC_PICTURES", tmp_path))
    place.mkdir(parents=True, exist_ok=True)
    return place


def fill(server: Server) -> None:
    """A morning's work of several callers."""
    for caller, request in (
        ("deploy", api.ExecRequest(arguments=["systemctl", "--version"], labels={"team": "platform"})),
        ("alice", api.ExecRequest(shell="python3 -c 'import sys; sys.exit(3)'")),
        ("nightly", api.ExecRequest(arguments=["sleep", "600"], labels={"job": "backup"})),
        ("alice", api.ExecRequest(shell="echo stuck; kill -SEGV $$")),
        ("ci", api.ExecRequest(shell="sleep 30", labels={"pipeline": "main"})),
        ("deploy", api.ExecRequest(arguments=["/opt/app/migrate", "--to", "head"], labels={"team": "platform"})),
        ("ci", api.ExecRequest(arguments=["seq", "1", "100000"], labels={"pipeline": "main"})),
    ):
        if "30" in request.shell:
            request.timeout.FromMilliseconds(50)
        if "sleep" not in str(request.arguments):
            request.wait.FromSeconds(10)
        server.stub.Exec(request, metadata=(("authorization", f"Bearer {caller}"),))


def test_pictures_of_the_page(page: Page, gateway: Server, pictures: Path, tmp_path: Path) -> None:
    """Light and dark, wide and phone, list, log and form; each different from the others."""
    fill(gateway)
    (tmp_path / "build.sh").write_text(BUILD)
    build = api.ExecRequest(exec_id="build", arguments=["sh", "build.sh", "--release"], labels={"pipeline": "main"})
    build.working_directory = str(tmp_path)
    page.exec(build)
    taken = {}
    for size, width in ((WIDE, "wide"), (PHONE, "phone")):
        for scheme in ("light", "dark"):
            page.browser.look(size, scheme)
            page.open("build")
            eventually(lambda: any("72%" in row for row in page.rows))
            eventually(lambda: len(page.commands) == 8)
            taken[f"page-{width}-{scheme}"] = page.driver.get_screenshot_as_png()
    page.browser.look(PHONE, "light")
    page.open()
    eventually(lambda: len(page.commands) == 8)
    taken["list-phone-light"] = page.driver.get_screenshot_as_png()
    page.click("#start")
    taken["form-phone-light"] = page.driver.get_screenshot_as_png()
    for name, picture in taken.items():
        (pictures / f"{name}.png").write_bytes(picture)
    assert len(set(taken.values())) == len(taken)


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (color, under) => {
  canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (c) => c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const {backgroundColor} = getComputedStyle(one);
    if (backgroundColor !== 'rgba(0, 0, 0, 0)') return backgroundColor;
  }
  return 'white';
};
const found = {};
for (const one of document.querySelectorAll('button, a, p, span, time, h1, dt, dd, pre, summary, .log-row')) {
  if (!one.checkVisibility() || !one.textContent.trim() || one.className.includes?.('ansi-')) continue;
  const under = ground(one), pair = [rgb(getComputedStyle(one).color, under), rgb(under, 'white')].map(light).sort();
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (ratio < 4.5) found[one.id || one.className || one.tagName] = ratio;
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    """The contrast of all text with what is under it is at least 4.5, as WCAG AA has it."""
    page.browser.look(WIDE, scheme)
    for command in ("echo fine", "exit 3", "sleep 600"):
        page.exec(api.ExecRequest(shell=f"{command}; echo err >&2"))
    page.start("echo out; echo err >&2; exit 1")
    eventually(lambda: len(page.rows) == 2)
    eventually(lambda: len(page.commands) == 4)
    assert page.run(CONTRAST) == {}


def test_the_theme_follows_the_system_until_somebody_chooses(page: Page) -> None:
    """The button goes round system, light and dark, and the choice survives a reload."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.browser.look(WIDE, "dark")
    dark = page.run(ground)
    assert light != dark
    page.click("#theme")
    assert page.run(ground) == light
    page.driver.refresh()
    eventually(lambda: page.run(ground) == light)
    page.click("#theme")
    assert page.run(ground) == dark
    page.browser.look(WIDE, "light")
    assert page.run(ground) == dark
