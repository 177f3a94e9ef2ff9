"""docs/security.md names each test of the research, and is right about where it is."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "security.md"
# All that the research names, by area: no row vanishes unnoticed.
NAMED = {
    "AU": (1, 2, 3, 4, 10, 11),
    "TK": range(1, 16),
    "AZ": (1, 2, 3, *range(10, 23), *range(30, 35), 40, 41),
    "IN": (1,),
    "GW": range(1, 11),
    "CN": (*range(1, 9), 10),
    "DS": range(1, 8),
    "CF": range(1, 6),
    "LG": range(1, 6),
}
_ROW = re.compile(r"^\| (T-[A-Z]{2}-\d\d) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
_NAME = re.compile(r"def test_t_([a-z]{2})_(\d\d)")


def listed() -> dict[str, str]:
    """What the page says of each name."""
    rows = _ROW.findall(PAGE.read_text())
    assert len(rows) == len(dict(rows))
    return dict(rows)


def found() -> dict[str, set[str]]:
    """In which files a test has each name."""
    names: dict[str, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        for area, number in _NAME.findall(path.read_text()):
            names.setdefault(f"T-{area.upper()}-{number}", set()).add(str(path.relative_to(TESTS)))
    return names


def test_each_name_is_on_the_page() -> None:
    """In a row of its own, and none beside them."""
    assert set(listed()) == {f"T-{area}-{number:02}" for area, numbers in NAMED.items() for number in numbers}


def test_each_name_is_where_the_page_says() -> None:
    """Or the page says why it is absent."""
    tests = found()
    for name, where in listed().items():
        files = set(re.findall(r"`(\S+\.py)`", where))
        assert all((TESTS / file).is_file() for file in files), name
        if name in tests:
            assert files >= tests[name], f"{name} is in {sorted(tests[name])}"
        else:
            assert "absent: " in where, name


def test_each_test_is_on_the_page() -> None:
    """A name that the page does not know is a mistake in one of the two."""
    assert set(found()) <= set(listed())
