"""From results to the page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bench import picture, report
from bench.model import Benchmark, Cell, Goal
from bench.results import Result, Row
from bench.table import number
from tests.bench.results import case, result, row

OURS, SSH = Cell("one", "rexec", "time"), Cell("one", "ssh", "time")
GOAL = Goal("of ssh's", OURS, "at most", 0.5, (SSH,))
SOME = Benchmark("some", "Something", "What it is.", lambda _: (), (GOAL,), pictured=("one",))
EVERY = {"some": SOME}
PAGE = f"# Performance\n\nBefore.\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter.\n"


def measured() -> Result:
    return result(case(row("rexec", 1, 2, 3), row("ssh", 8, 8, 8), Row("other", skipped="it is not here")))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """What the report is made of is what was measured."""
    assert Result.load(measured().save(tmp_path)) == measured()


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    """The error says which file it is."""
    (tmp_path / "some.json").write_text('{"benchmark": "some"}')
    with pytest.raises(ValueError, match=r"some\.json is no result"):
        report.load(tmp_path, EVERY)


def test_the_page_gets_tables_and_keeps_its_text(tmp_path: Path) -> None:
    """Only what is between the markers changes, and writing twice is as writing once."""
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    report.write(page, [measured()], EVERY)
    once = page.read_text()
    assert once.startswith("# Performance\n\nBefore.\n")
    assert once.endswith(f"{report.END}\n\nAfter.\n")
    assert "old" not in once
    assert "| **rexec** | 2 (1–3) | × 0.25 |" in once
    assert "| some: of ssh's | at most × 0.5 | × 0.25 | met, by × 2 |" in once
    assert "other skipped: it is not here." in once
    report.write(page, [measured()], EVERY)
    assert page.read_text() == once


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    """Nothing is written where nobody said it should be."""
    page = tmp_path / "page.md"
    page.write_text("# Performance\n")
    with pytest.raises(report.NothingToReport, match="has no lines"):
        report.write(page, [measured()], EVERY)
    assert page.read_text() == "# Performance\n"


def test_no_results_are_said_to_be_none(tmp_path: Path) -> None:
    """With what to do about it."""
    with pytest.raises(report.NothingToReport, match="make bench"):
        report.load(tmp_path, EVERY)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.6, "1,235"), (99.96, "100"), (12.345, "12.3"), (10.0, "10"), (0.12345, "0.123"), (2, "2")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """More would say more than was measured."""
    assert number(value) == text


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `bench`")
@pytest.mark.filterwarnings("default")  # of matplotlib's own making
def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    """It is checked in: the same results must make the same file."""
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    picture.draw([first, tmp_path / "first.png"], [measured()], EVERY)
    picture.draw([second], [measured()], EVERY)
    assert "× 0.25" in first.read_text()
    assert first.read_bytes() == second.read_bytes()
