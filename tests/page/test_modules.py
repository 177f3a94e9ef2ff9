"""The page's modules that need no browser, under node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "rexec_server" / "gateway" / "static"
LONGEST_FILE = 300
# Each makes markup, or a program, of text.
MAKES_MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function")


def test_the_modules_do_what_their_tests_say(tmp_path: Path) -> None:
    """Escape sequences, bounds of the log and event streams, with pieces cut everywhere."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    # Only where package.json says so are .js files modules for every version of node; the page needs none.
    shutil.copytree(STATIC, tmp_path / STATIC.relative_to(ROOT))
    shutil.copytree(ROOT / "tests/page/js", tmp_path / "tests/page/js")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    tests = sorted(map(str, (tmp_path / "tests/page/js").glob("*.test.mjs")))
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_module_makes_markup_of_text(path: Path) -> None:
    """Nothing that parses text as markup or code is used, and each file can be read at once."""
    source = path.read_text()
    assert [word for word in MAKES_MARKUP if word in source] == []
    assert len(source.splitlines()) <= LONGEST_FILE


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No file of the page names another host; the SVG name space is only a name."""
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "").replace("https://html.spec.whatwg.org", "")
        assert "http://" not in text, path.name
        assert "https://" not in text, path.name
