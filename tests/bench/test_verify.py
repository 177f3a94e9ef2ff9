"""A wrong result is found, wherever it is wrong."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import pytest

from bench.benchmarks.wake_up import Stamps
from bench.verify import Check, Checksum, Pattern, Wrong, expect_output, expect_status

BLOCK = b"abcdefgh"
WHOLE = BLOCK * 5
CHECKS: list[Callable[[], Check]] = [
    lambda: Pattern(BLOCK, len(WHOLE)),
    lambda: Checksum(len(WHOLE), zlib.crc32(WHOLE)),
]


@pytest.fixture(params=CHECKS, ids=["pattern", "checksum"])
def check(request: pytest.FixtureRequest) -> Check:
    made: Check = request.param()
    return made


def feed_all(check: Check, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        check.feed(piece)
    check.finish()


@pytest.mark.parametrize("size", [1, 3, 8, 11, 40])
def test_output_may_come_in_any_pieces(check: Check, size: int) -> None:
    """How it was cut on its way does not matter, also where a piece is longer than the block that repeats."""
    feed_all(check, [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)])


@pytest.mark.parametrize(
    "wrong",
    [WHOLE[:-1], WHOLE + b"a", WHOLE[1:], b"", WHOLE[:20] + b"X" + WHOLE[21:], WHOLE[:16] + WHOLE[24:] + b"h" * 8],
    ids=["short", "long", "headless", "empty", "changed", "hole"],
)
def test_a_byte_that_is_missing_added_or_changed_is_found(check: Check, wrong: bytes) -> None:
    """Also when the size is right."""
    with pytest.raises(Wrong):
        feed_all(check, [wrong[at : at + 7] for at in range(0, len(wrong), 7)])


def test_another_status_or_output_is_wrong() -> None:
    """No status at all is none that was expected."""
    expect_status(0)
    expect_output("text", b"text")
    with pytest.raises(Wrong, match="exit status is None, not 0"):
        expect_status(None)
    with pytest.raises(Wrong, match="4 bytes"):
        expect_output(b"more", b"")


def test_stamps_are_lines_however_they_were_cut() -> None:
    """A time that is split between two pieces is one line, and a missing line is found."""
    stamps = Stamps(2)
    for piece in (b"100\n2", b"00", b"\n"):
        stamps.feed(piece)
    stamps.finish()
    with pytest.raises(Wrong, match="has 2 lines, not 3"):
        feed_all(_after(stamps, 3), [])


def _after(stamps: Stamps, count: int) -> Stamps:
    again = Stamps(count)
    again.times = stamps.times
    return again
