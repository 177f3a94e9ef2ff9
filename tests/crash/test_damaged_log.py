"""Logs that lost something: what is still read is right, and the rest is an exact gap."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rexec_server.core.log import LogReader, Missing
from rexec_server.core.spool import Channel, ExitRecord, Reason, index_name, segment_name
from rexec_server.runner.mending import mend_log
from tests.core.test_log import Pieces, pieces, write_log

LENGTHS = {Channel.STDOUT: 0, Channel.STDERR: 1}
damages = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["cut", "zeros", "gone"]), st.integers(0, 400)), max_size=3
)


def record_of(log: Pieces) -> ExitRecord:
    sizes = [sum(len(data) for channel, data in log if channel == wanted) for wanted in LENGTHS]
    return ExitRecord(Reason.EXITED, 1, *sizes, output_complete=True, exit_code=0)


def damage(path: Path, found: list[tuple[int, str, int]]) -> None:
    for which, how, place in found:
        files = sorted(path.iterdir())
        if not files:
            return
        file = files[which % len(files)]
        data = file.read_bytes()
        kept = data[: place % (len(data) + 1)]
        match how:
            case "cut":
                file.write_bytes(kept)
            case "zeros":
                file.write_bytes(kept.ljust(len(data), b"\0"))
            case "gone":
                file.unlink()


def check(path: Path, log: Pieces, record: ExitRecord, strict: bool) -> None:
    """Chunks and gaps follow each other to the end, and add up; each byte is what was written there."""
    written = [(channel, byte) for channel, data in log for byte in data]
    end = record.stdout_bytes + record.stderr_bytes
    reader, offset, kept = LogReader(str(path)), 0, [0, 0]
    while (reading := reader.read(offset, 1 << 20, end=end)).items:
        for item in reading.items:
            if isinstance(item, Missing):
                assert (item.start, item.end > offset) == (offset, True)
                offset = item.end
                continue
            assert item.offset == offset
            kept[LENGTHS[item.channel]] += len(item.data)
            if strict:
                assert [(item.channel, byte) for byte in item.data] == written[offset : offset + len(item.data)]
            offset += len(item.data)
    assert offset == end
    extent = reader.extent(record)
    assert extent.end == end
    assert [made - gone for made, gone in zip(extent.produced, extent.dropped, strict=True)] == kept


@settings(max_examples=60, deadline=None)
@given(pieces, st.sets(st.integers(1, 24)), damages)
def test_a_reader_of_a_damaged_log_sees_exact_gaps(
    log: Pieces, cuts: set[int], found: list[tuple[int, str, int]]
) -> None:
    """Whatever was lost, nothing is read twice or passed over in silence, and the totals are those of the reading."""
    with tempfile.TemporaryDirectory() as directory:
        write_log(Path(directory), log, cuts)
        damage(Path(directory), found)
        check(Path(directory), log, record_of(log), strict=False)


@settings(max_examples=60, deadline=None)
@given(pieces, st.sets(st.integers(1, 24)), damages)
def test_a_mended_log_has_nothing_but_what_was_written(
    log: Pieces, cuts: set[int], found: list[tuple[int, str, int]]
) -> None:
    """After a restart of the machine each byte that is told is right, channel and all, where the end is on record."""
    with tempfile.TemporaryDirectory() as directory:
        write_log(Path(directory), log, cuts)
        damage(Path(directory), found)
        mend(directory, record_of(log))
        check(Path(directory), log, record_of(log), strict=True)
        mend(directory, record_of(log))
        check(Path(directory), log, record_of(log), strict=True)


@settings(max_examples=60, deadline=None)
@example([(Channel.STDOUT, b"a"), (Channel.STDOUT, b"a")], {1}, [(1, "gone", 0)])
@example([(Channel.STDERR, b"a"), (Channel.STDERR, b"a")], {1}, [(0, "gone", 0)])
@given(pieces, st.sets(st.integers(1, 24)), damages)
def test_a_mended_log_of_a_lost_execution_adds_up(
    log: Pieces, cuts: set[int], found: list[tuple[int, str, int]]
) -> None:
    """Without a record the log itself says how much there was, and from its first segment on all can be read."""
    with tempfile.TemporaryDirectory() as directory:
        write_log(Path(directory), log, cuts)
        damage(Path(directory), found)
        stdout, stderr = mend(directory, None).values()
        record = ExitRecord(Reason.LOST, 1, stdout, stderr, output_complete=False, lost="the machine was restarted")
        extent = LogReader(directory).extent(record)
        assert sum(extent.dropped) == extent.start  # a first segment that has gone looks like one that was dropped
        check(Path(directory), log, record, strict=False)


def test_a_log_without_damage_is_mended_to_itself(tmp_path: Path) -> None:
    """Also one whose oldest segments were dropped, and one with zeros that are not at a page's end."""
    log: Pieces = [(Channel.STDOUT, b"a\0b" * 2000), (Channel.STDERR, b"c" * 5000), (Channel.STDOUT, b"d" * 7)]
    write_log(tmp_path, log, {1, 2}, dropped=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    mend(str(tmp_path), record_of(log))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", [1, 4096, 4097, 9000])
def test_zeros_that_were_never_written_are_no_output(tmp_path: Path, size: int) -> None:
    """A file system may have made a segment long and not filled it: the log is cut where the zeros begin."""
    write_log(tmp_path, [(Channel.STDOUT, b"x" * 9000), (Channel.STDOUT, b"y" * 100)], set())
    path = tmp_path / segment_name(0)
    path.write_bytes(path.read_bytes()[:size].ljust(9100, b"\0"))
    assert mend(str(tmp_path), None) == {Channel.STDOUT: size, Channel.STDERR: 0}
    assert path.stat().st_size == size
    assert (tmp_path / index_name(0)).stat().st_size == 8 + 24


def mend(path: str, record: ExitRecord | None) -> dict[Channel, int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return mend_log(directory, record)
    finally:
        os.close(directory)
