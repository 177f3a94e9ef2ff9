"""Reading logs: tails, ranges and totals against a naive model, with real files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexec_server.core.log import MAX_CHUNKS, Chunk, LogReader, Missing
from rexec_server.core.segment_index import BATCH
from rexec_server.core.spool import Channel, ExitRecord, Piece, Reason, Segment, index_name, segment_name

OUT, ERR = Channel.STDOUT, Channel.STDERR
Pieces = list[tuple[Channel, bytes]]

# Few different bytes, many newlines: lines end and pieces are cut everywhere.
pieces = st.lists(st.tuples(st.sampled_from(Channel), st.text("a\n", min_size=1, max_size=9)), max_size=25).map(
    lambda found: [(channel, text.encode()) for channel, text in found]
)
two_counts = st.tuples(st.integers(0, 9), st.integers(0, 9))
# Of how many pieces a batch is must not be seen.
batches = st.sampled_from([1, 2, 3, 1024])
channel_sets = st.sampled_from([(OUT, ERR), (OUT,), (ERR,)])


def write_log(path: Path, log: Pieces, cuts: set[int], dropped: int = 0) -> None:
    """Writes pieces as the shim does; segments begin before the pieces `cuts`, the first `dropped` are gone."""
    offset = stdout = 0
    segment = index = b""
    start = number = 0

    def flush() -> None:
        if index and number >= dropped:
            (path / segment_name(start)).write_bytes(segment)
            (path / index_name(start)).write_bytes(index)

    for i, (channel, data) in enumerate(log):
        if i in cuts or not index:
            flush()
            number += bool(index)
            segment, index, start = b"", Segment(stdout).to_bytes(), offset
        index += Piece(offset, i, channel).to_bytes()
        segment += data
        offset += len(data)
        stdout += len(data) if channel == OUT else 0
    flush()


@contextmanager
def written(log: Pieces, cuts: set[int], dropped: int = 0, batch: int = BATCH) -> Iterator[LogReader]:
    """A reader of such a log."""
    with tempfile.TemporaryDirectory() as path:
        write_log(Path(path), log, cuts, dropped)
        yield LogReader(path, batch)


def naive_tail(log: Pieces, lines: int, channels: tuple[Channel, ...]) -> int:
    """The offset of the newest lines: each byte of the channels has an offset; lines are counted from the end."""
    marked = [(offset, byte) for offset, byte in _bytes(log, channels)]
    begins = [i for i in range(len(marked)) if i == 0 or marked[i - 1][1] == ord("\n")]
    end = sum(len(data) for _, data in log)
    if lines == 0 or not marked:
        return end
    return marked[begins[max(0, len(begins) - lines)]][0]


def _bytes(log: Pieces, channels: tuple[Channel, ...]) -> Iterator[tuple[int, int]]:
    offset = 0
    for channel, data in log:
        for byte in data:
            if channel in channels:
                yield offset, byte
            offset += 1


def read_all(reader: LogReader, offset: int, step: int, channels: tuple[Channel, ...]) -> bytes:
    data = b""
    while (reading := reader.read(offset, step, channels)).next_offset > offset:
        data += b"".join(chunk.data for chunk in reading.chunks)
        offset = reading.next_offset
    return data


@given(log=pieces, cuts=st.sets(st.integers(1, 25)), lines=st.integers(0, 12), channels=channel_sets, batch=batches)
@settings(deadline=None, max_examples=300)
def test_tail_lines_is_what_a_naive_model_says(
    log: Pieces, cuts: set[int], lines: int, channels: tuple[Channel, ...], batch: int
) -> None:
    """Whatever is read from there are exactly the newest lines, an unfinished one included."""
    with written(log, cuts, batch=batch) as reader:
        offset = reader.tail_lines(lines, 1 << 20, channels)
        want = naive_tail(log, lines, channels)
        expected = bytes(byte for at, byte in _bytes(log, channels) if at >= want)
        assert read_all(reader, offset, 1 << 20, channels) == expected


@given(log=pieces, cuts=st.sets(st.integers(1, 25)), size=st.integers(0, 60), channels=channel_sets, batch=batches)
@settings(deadline=None, max_examples=200)
def test_tail_bytes_and_the_limit_of_tail_lines(
    log: Pieces, cuts: set[int], size: int, channels: tuple[Channel, ...], batch: int
) -> None:
    """The newest bytes of the channels, and never more of them than asked for."""
    everything = bytes(byte for _, byte in _bytes(log, channels))
    with written(log, cuts, batch=batch) as reader:
        newest = read_all(reader, reader.tail_bytes(size, channels), 1 << 20, channels)
        assert newest == (everything[-size:] if size else b"")
        limited = read_all(reader, reader.tail_lines(4, size, channels), 1 << 20, channels)
        assert len(limited) <= size
        assert everything.endswith(limited)


@given(
    log=pieces,
    cuts=st.sets(st.integers(1, 25)),
    dropped=st.integers(0, 3),
    offset=st.integers(0, 250),
    step=st.integers(1, 20),
    batch=batches,
)
@settings(deadline=None, max_examples=300)
def test_every_range_is_right_or_a_gap(
    log: Pieces, cuts: set[int], dropped: int, offset: int, step: int, batch: int
) -> None:
    """From any offset in any steps: bytes of the right channel, at the right place, and gaps where they are gone."""
    whole = b"".join(data for _, data in log)
    owner = [channel for channel, data in log for _ in data]
    with written(log, cuts, dropped, batch) as reader:
        extent = reader.extent()
        while (reading := reader.read(offset, step)).items:
            for item in reading.items:
                if isinstance(item, Missing):
                    assert (item.start, item.end) == (offset, extent.start)
                    offset = item.end
                else:
                    assert (item.offset, item.data) == (offset, whole[offset : offset + len(item.data)])
                    assert set(owner[offset : offset + len(item.data)]) == {item.channel}
                    offset += len(item.data)
            assert len(b"".join(chunk.data for chunk in reading.chunks)) <= step
            assert reading.next_offset == offset
        assert extent.end == 0 or offset >= extent.end


@given(log=pieces, cuts=st.sets(st.integers(1, 25)), dropped=st.integers(0, 3), lost=two_counts, batch=batches)
@settings(deadline=None, max_examples=200)
def test_rule_6_totals_add_up(log: Pieces, cuts: set[int], dropped: int, lost: tuple[int, int], batch: int) -> None:
    """Rule 6: produced = readable + dropped, for each channel, also for what never reached a full disk."""
    with written(log, cuts, dropped, batch) as reader:
        live = reader.extent()
        if live.end == 0:
            return
        produced = tuple(total + more for total, more in zip(live.produced, lost, strict=True))
        record = ExitRecord(Reason.EXITED, 0, *produced, output_complete=True, exit_code=0)
        for extent, end in ((live, None), (reader.extent(record), sum(produced))):
            items = reader.read(0, 1 << 20, end=end).items
            for channel in Channel:
                readable = sum(len(i.data) for i in items if isinstance(i, Chunk) and i.channel == channel)
                assert extent.produced[channel - 1] == readable + extent.dropped[channel - 1]
            gaps = sum(item.end - item.start for item in items if isinstance(item, Missing))
            assert gaps == sum(extent.dropped)


def test_an_empty_or_removed_log_is_empty(tmp_path: Path) -> None:
    """Nothing written yet, or everything removed: no error, no bytes."""
    for path in (tmp_path, tmp_path / "gone"):
        reader = LogReader(str(path))
        assert reader.read(0, 100).items == []
        assert reader.extent().end == reader.tail_lines(3, 100) == reader.tail_bytes(3) == 0


def test_a_reading_has_a_bounded_number_of_chunks(tmp_path: Path) -> None:
    """Many small pieces do not make a message too large; the next read goes on."""
    log = [((OUT, ERR)[i % 2], b"x") for i in range(MAX_CHUNKS + 10)]
    write_log(tmp_path, log, set())
    reader = LogReader(str(tmp_path))
    first = reader.read(0, 1 << 20)
    assert (len(first.items), first.next_offset) == (MAX_CHUNKS, MAX_CHUNKS)
    assert len(reader.read(first.next_offset, 1 << 20).items) == 10


def test_a_long_line_is_limited_by_bytes(tmp_path: Path) -> None:
    """Row 16: a line of megabytes is not read to find its beginning."""
    write_log(tmp_path, [(OUT, b"x" * 3_000_000)], set())
    assert LogReader(str(tmp_path)).tail_lines(3, 1000) == 3_000_000 - 1000


def test_a_growing_log_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    """A reader that stays sees what is added, an entry that was replaced, and new segments."""
    reader = LogReader(str(tmp_path))
    log: Pieces = [(OUT, b"one\n")]
    write_log(tmp_path, log, set())
    assert read_all(reader, 0, 100, (OUT, ERR)) == b"one\n"
    with (tmp_path / index_name(0)).open("ab") as index:
        index.write(Piece(4, 9, OUT).to_bytes())
    assert reader.extent().produced == (4, 0)
    log += [(ERR, b"two\n"), (OUT, b"three\n")]
    write_log(tmp_path, log, {2})
    assert reader.extent().produced == (10, 4)
    assert [chunk.channel for chunk in reader.read(0, 100).chunks] == [OUT, ERR, OUT]


@pytest.mark.parametrize("batch", [1, 2, BATCH])
@pytest.mark.parametrize("channel", Channel)
def test_before_gives_what_came_right_before(tmp_path: Path, channel: Channel, batch: int) -> None:
    """Bytes of one channel before an offset, over pieces of the other and over segments."""
    write_log(tmp_path, [(OUT, b"ab"), (ERR, b"XY"), (OUT, b"c"), (ERR, b"Z"), (OUT, b"d")], {2, 3})
    reader = LogReader(str(tmp_path), batch)
    whole = {OUT: [(0, b"a"), (1, b"b"), (4, b"c"), (6, b"d")], ERR: [(2, b"X"), (3, b"Y"), (5, b"Z")]}[channel]
    for offset in range(9):
        for size in range(5):
            want = b"".join(byte for at, byte in whole if at < offset)
            assert reader.before(offset, channel, size) == (want[-size:] if size else b"")


def test_a_piece_beyond_what_was_seen_counts_later(tmp_path: Path) -> None:
    """The size was seen before the writer went on: totals are of the bytes that were seen, channel by channel."""
    write_log(tmp_path, [(OUT, b"12345"), (OUT, b"678"), (ERR, b"9")], set())
    whole = (tmp_path / segment_name(0)).read_bytes()
    reader = LogReader(str(tmp_path))
    for seen, produced in ((0, (0, 0)), (4, (4, 0)), (7, (7, 0)), (9, (8, 1))):
        (tmp_path / segment_name(0)).write_bytes(whole[:seen])
        for looking in (reader, LogReader(str(tmp_path))):
            assert looking.extent().produced == produced
            assert b"".join(chunk.data for chunk in looking.read(0, 100).chunks) == whole[:seen]


def test_a_reader_that_stays_sees_each_batch_that_is_added(tmp_path: Path) -> None:
    """Piece by piece, over the ends of batches: totals and tails are those of a reader that has just come."""
    log: Pieces = []
    reader = LogReader(str(tmp_path), batch=3)
    for number in range(20):
        log.append(((OUT, ERR)[number % 3 == 0], b"a\n"[: 1 + number % 2]))
        write_log(tmp_path, log, {8})
        fresh = LogReader(str(tmp_path))
        assert reader.extent() == fresh.extent()
        assert reader.tail_lines(2, 5, (OUT,)) == fresh.tail_lines(2, 5, (OUT,))
        assert reader.read(3, 100, (ERR,)) == fresh.read(3, 100, (ERR,))


def test_nothing_after_a_damaged_piece_is_told(tmp_path: Path) -> None:
    """Up to it all is right; from where the last good piece begins the rest of its segment is a gap."""
    log: Pieces = [((OUT, ERR)[number % 2], b"ab") for number in range(12)]
    write_log(tmp_path, log, {8})
    index = tmp_path / index_name(0)
    data = bytearray(index.read_bytes())
    data[8 + 5 * 24 + 16] = 7  # no channel
    index.write_bytes(data)
    for batch in (1, 2, 4, BATCH):
        reader = LogReader(str(tmp_path), batch)
        items = reader.read(0, 100).items
        assert [(i.offset, i.channel) for i in items if isinstance(i, Chunk)] == [
            (offset, (OUT, ERR)[offset // 2 % 2]) for offset in (0, 2, 4, 6, 16, 18, 20, 22)
        ]
        assert [i for i in items if isinstance(i, Missing)] == [Missing(8, 16)]


def test_a_log_of_many_pieces_is_gone_through_in_small_steps(tmp_path: Path) -> None:
    """No step looks at more than a batch of pieces, and what is remembered of a batch are two numbers."""
    log: Pieces = [((OUT, ERR)[number % 2], b"x") for number in range(20 * BATCH)]
    write_log(tmp_path, log, set())
    reader = LogReader(str(tmp_path))
    assert sum(1 for _ in reader.catch_up()) >= 19
    assert sum(1 for _ in reader.catch_up()) == 0, "it was gone through"
    assert reader.extent().produced == (10 * BATCH, 10 * BATCH)


def test_the_beginning_of_an_endless_line_is_sought_in_small_steps(tmp_path: Path) -> None:
    """A line may have gigabytes: each step reads a bounded part of it."""
    write_log(tmp_path, [(OUT, b"begin\n"), (OUT, b"x" * 4_000_000)], set())
    steps = LogReader(str(tmp_path)).tail(1, 1 << 40)
    assert sum(1 for _ in steps) >= 4_000_000 // (64 * 1024)
    assert LogReader(str(tmp_path)).tail_lines(1, 1 << 40) == 6


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", [segment_name, index_name])
def test_what_is_no_regular_file_is_damage(
    tmp_path: Path, make: Callable[[Path], None], name: Callable[[int], str]
) -> None:
    """It is not waited for, and not followed: up to the next segment there is a gap."""
    write_log(tmp_path, [(OUT, b"one\n"), (OUT, b"two\n")], {1})
    (tmp_path / name(0)).unlink()
    make(tmp_path / name(0))
    reader = LogReader(str(tmp_path))
    assert reader.read(0, 100).items == [Missing(0, 4), Chunk(OUT, 4, 1, b"two\n")]
    assert reader.tail_lines(5, 100) == 4
    assert reader.before(4, OUT, 3) == b""
