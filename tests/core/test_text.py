"""The readable view: whatever the cuts, the text is that of the whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rexec_server.core.log import LogReader
from rexec_server.core.spool import Channel
from rexec_server.core.text import TextView
from tests.core.test_log import Pieces, write_log

texts = st.text(st.sampled_from("aé€😀\n"), max_size=20).map(str.encode)
# Valid text, and bytes that are none.
noisy = st.lists(st.one_of(texts, st.binary(max_size=4)), max_size=6).map(b"".join)


def mixed(out: bytes, err: bytes, cuts: list[int]) -> Pieces:
    """Both channels in turns, cut into pieces of the given sizes."""
    rest = {Channel.STDOUT: out, Channel.STDERR: err}
    log: Pieces = []
    for i, size in enumerate([*cuts, *[1 << 20] * 2]):
        channel = Channel(1 + i % 2)
        if rest[channel][:size]:
            log.append((channel, rest[channel][:size]))
            rest[channel] = rest[channel][size:]
    return log


def view_all(reader: LogReader, offset: int, step: int) -> dict[Channel, str]:
    """The text of both channels from an offset on, read in steps."""
    view = TextView(reader, offset)
    text = dict.fromkeys(Channel, "")
    while (reading := reader.read(offset, step)).items:
        for chunk in reading.chunks:
            text[chunk.channel] += view.chunk(chunk).text
        offset = reading.next_offset
    for rest in view.finish(offset, 0):
        text[rest.channel] += rest.text
    return text


@given(out=noisy, err=noisy, cuts=st.lists(st.integers(0, 5), max_size=20), step=st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_rule_13_characters_split_anywhere_are_whole(out: bytes, err: bytes, cuts: list[int], step: int) -> None:
    """Rule 13: read from the start, the text is what decoding each whole channel gives."""
    with tempfile.TemporaryDirectory() as path:
        write_log(Path(path), mixed(out, err, cuts), {3, 7})
        text = view_all(LogReader(path), 0, step)
    assert text == {Channel.STDOUT: out.decode(errors="replace"), Channel.STDERR: err.decode(errors="replace")}


@given(
    out=texts, err=texts, cuts=st.lists(st.integers(0, 5), max_size=20), step=st.integers(1, 9), at=st.integers(0, 120)
)
@settings(deadline=None, max_examples=200)
def test_rule_13_a_view_that_begins_within_a_character(
    out: bytes, err: bytes, cuts: list[int], step: int, at: int
) -> None:
    """Rule 13: two views that meet at any offset give together what one gives, nothing doubled or replaced."""
    log = mixed(out, err, cuts)
    at = min(at, len(out) + len(err))
    with tempfile.TemporaryDirectory() as path:
        write_log(Path(path), log, {2, 5})
        reader = LogReader(path)
        first = dict.fromkeys(Channel, b"")
        for chunk in reader.read(0, at).chunks if at else []:
            first[chunk.channel] += chunk.data
        rest = view_all(reader, at, step)
    for channel, whole in ((Channel.STDOUT, out), (Channel.STDERR, err)):
        before = first[channel].decode(errors="ignore")  # an unfinished character is the second view's
        assert before + rest[channel] == whole.decode()
