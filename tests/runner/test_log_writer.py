"""The writer of the log, with real FIFOs and files: pieces, segments, cap, and a successor's start anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rexec_server.core.launch import Overflow
from rexec_server.core.log import LogReader, Missing
from rexec_server.core.spool import PIECE_FORMAT, Channel, index_name, segment_offsets
from rexec_server.runner.log_writer import LogWriter, OutputLimitReached

writes = st.lists(st.tuples(st.sampled_from(Channel), st.binary(min_size=1, max_size=300)), max_size=30)


class Bench:
    """A writer, and FIFOs to feed it by."""

    def __init__(self, path: Path, cap: int = 1 << 20, overflow: Overflow = Overflow.DROP_OLDEST) -> None:
        self.path = path
        self._settings = (cap, overflow)
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._pipes = {channel: os.pipe2(os.O_NONBLOCK) for channel in Channel}
        self.writer = self._begin()
        self.produced = dict.fromkeys(Channel, b"")
        self.log = b""

    def put(self, channel: Channel, data: bytes) -> None:
        unsent = data
        while unsent:
            unsent = unsent[os.write(self._pipes[channel][1], unsent) :]
            while self.writer.take(self._pipes[channel][0], channel):
                pass
        self.produced[channel] += data
        self.log += data

    def succeed(self) -> None:
        """The writer dies; another goes on."""
        self.writer.close()
        self.writer = self._begin()

    def close(self) -> None:
        self.writer.close()
        for fd in (self.directory, *(fd for ends in self._pipes.values() for fd in ends)):
            os.close(fd)

    def _begin(self) -> LogWriter:
        return LogWriter(self.directory, *self._settings)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with room for everything."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def assert_right(bench: Bench) -> None:
    """Whatever is kept is right, of the right channel, and counted."""
    reader = LogReader(str(bench.path))
    items, offset = [], 0
    while (reading := reader.read(offset, 1 << 16)).items:
        items += reading.items
        offset = reading.next_offset
    extent = reader.extent()
    assert extent.produced == tuple(len(bench.produced[channel]) for channel in Channel)
    assert extent.end == len(bench.log) == bench.writer.end
    kept = dict.fromkeys(Channel, b"")
    position = 0
    for item in items:
        if isinstance(item, Missing):
            assert (position, item.start, item.end) == (0, 0, extent.start)
            position = item.end
            continue
        assert item.offset == position
        assert bench.log[position : position + len(item.data)] == item.data
        kept[item.channel] += item.data
        position += len(item.data)
    assert position == len(bench.log)
    for channel in Channel:
        assert bench.produced[channel].endswith(kept[channel])
        assert extent.dropped[channel - 1] == len(bench.produced[channel]) - len(kept[channel])


@given(writes=writes, cap=st.integers(1, 3000), deaths=st.sets(st.integers(0, 30)))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_output_under_any_cap_with_any_deaths(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[Channel, bytes]], cap: int, deaths: set[int]
) -> None:
    """produced = readable + dropped for each channel, whenever a writer died, however small the cap."""
    bench = Bench(tmp_path_factory.mktemp("log"), cap)
    try:
        for i, (channel, data) in enumerate(writes):
            if i in deaths:
                bench.succeed()
            bench.put(channel, data)
            assert sum(path.stat().st_size for path in bench.path.glob("*.log")) <= cap
        assert_right(bench)
        bench.succeed()
        assert_right(bench)
    finally:
        bench.close()


@pytest.mark.parametrize("size", range(PIECE_FORMAT.size))
def test_a_torn_last_index_entry_is_written_again(bench: Bench, size: int) -> None:
    """A writer that died within an entry had moved no byte for it."""
    bench.put(Channel.STDOUT, b"out")
    bench.put(Channel.STDERR, b"err")
    with (bench.path / index_name(0)).open("ab") as index:
        index.write(b"\xee" * size)
    bench.succeed()
    assert_right(bench)
    bench.put(Channel.STDERR, b"more")
    bench.put(Channel.STDOUT, b"end")
    assert_right(bench)


def test_a_death_between_an_entry_and_its_bytes(bench: Bench) -> None:
    """An entry of which no byte came is replaced, whatever channel comes next."""
    bench.put(Channel.STDOUT, b"out")
    with (bench.path / index_name(0)).open("ab") as index:
        index.write(PIECE_FORMAT.pack(3, 1, Channel.STDOUT))
    bench.succeed()
    assert_right(bench)
    bench.put(Channel.STDERR, b"err")
    assert_right(bench)


def test_a_death_right_after_a_new_segment_was_made(bench: Bench) -> None:
    """A segment without entries and without bytes is a place to go on."""
    bench.put(Channel.STDOUT, b"o" * (1 << 17))
    bench.put(Channel.STDERR, b"e")
    start = segment_offsets(bench.directory)[-1]
    os.truncate(bench.path / f"{start:020d}.log", 0)
    os.truncate(bench.path / index_name(start), 8)
    bench.log, bench.produced[Channel.STDERR] = bench.log[:start], b""
    assert start == 1 << 17  # a segment is full
    bench.succeed()
    assert_right(bench)
    bench.put(Channel.STDERR, b"again")
    assert_right(bench)


def test_terminate_takes_exactly_what_fits(tmp_path: Path) -> None:
    """The limit is exact, and the bytes beyond stay in the FIFO."""
    bench = Bench(tmp_path, 1000, Overflow.TERMINATE)
    bench.put(Channel.STDOUT, b"x" * 1000)
    with pytest.raises(OutputLimitReached):
        bench.put(Channel.STDERR, b"y")
    assert_right(bench)
    bench.close()


def test_row_09_the_index_counts_against_the_cap(tmp_path: Path) -> None:
    """Failure 9: bytes that change channel each time need far more room for their index than for themselves."""
    cap = 256 * 1024
    bench = Bench(tmp_path, cap)
    for i in range(30_000):
        bench.put(Channel(1 + i % 2), b"x")
        if i % 1000 == 0:
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cap + 8 * 4096
    assert_right(bench)
    assert segment_offsets(bench.directory)[0] > 0
    bench.close()


def test_a_quiet_channel_makes_no_entries(bench: Bench) -> None:
    """Writes that come together are one piece: the index of a chatty command stays small."""
    for _ in range(1000):
        bench.put(Channel.STDOUT, b"line\n")
    assert (bench.path / index_name(0)).stat().st_size < 8 + 24 * 200
    assert_right(bench)
