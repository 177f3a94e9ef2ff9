"""The parts that do no I/O: lines, the tally, targets."""

from __future__ import annotations

import filecmp
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rexec_client
from rexec_client.backoff import Backoff
from rexec_client.channel import DEFAULT_TARGET, channel_options, is_local, resolve_target
from rexec_client.lines import ChannelLines, LineSplitter
from rexec_client.output import Channel, OutputChunk
from rexec_client.tally import Tally
from tests.client.fakes import chunk, ended

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\x00", b"\n"))), st.integers(1, 8))
def test_lines_joined_are_the_input(chunks: list[bytes], longest: int) -> None:
    """Whatever the chunks: nothing is lost, nothing is longer than allowed, newlines are only at the end."""
    splitter = LineSplitter(longest)
    lines = [line for data in chunks for line in splitter.feed(data)] + list(splitter.flush())
    assert b"".join(lines) == b"".join(chunks)
    assert all(0 < len(line) <= longest + 1 for line in lines)
    assert all(b"\n" not in line[:-1] for line in lines)


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\nd", b"", b"\n\n"])))
def test_lines_are_those_of_the_whole(chunks: list[bytes]) -> None:
    """Cutting the input into chunks changes nothing about its lines."""
    splitter = LineSplitter()
    lines = [line for data in chunks for line in splitter.feed(data)] + list(splitter.flush())
    assert lines == b"".join(chunks).splitlines(keepends=True)


def test_characters_are_not_cut_in_overlong_lines() -> None:
    """A part of a line that is too long may end within a character: the text is right nevertheless."""
    lines = ChannelLines("utf-8", "strict", longest=3)
    data = "ääää\n".encode()
    assert "".join(lines.feed(OutputChunk(Channel.STDOUT, 0, data))) == "ääää\n"


def test_channels_do_not_mix_within_a_line() -> None:
    """A line of one channel is whole even when the other one writes in between."""
    lines = ChannelLines("utf-8", "strict", longest=100)
    pieces = [(Channel.STDOUT, b"ou"), (Channel.STDERR, b"err\n"), (Channel.STDOUT, b"t\n")]
    assert [line for channel, data in pieces for line in lines.feed(OutputChunk(channel, 0, data))] == [
        "err\n",
        "out\n",
    ]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_a_tally_gives_each_byte_once(steps: list[tuple[int, int]]) -> None:
    """Chunks that overlap and repeat, as resumed streams bring them, add up to the log."""
    tally, log, got = Tally(), bytes(range(200)), b""
    for back, length in steps:
        start = max(len(got) - back, 0)
        got += b"".join(piece.data for piece in tally.chunks([chunk(start, log[start : start + length])]))
    log = log[: len(got)]
    assert got == log
    tally.check(ended(log))


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.2:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:/run/rexec.sock", True),
        ("unix:///run/rexec.sock", True),
        ("unix-abstract:rexec", True),
        ("example.org:50051", False),
        ("dns:///example.org:1", False),
        ("10.0.0.1:50051", False),
        ("app.localhost:50051", False),
        ("dns:///app.localhost:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_loopback_is_recognized(target: str, local: bool) -> None:
    """A proxy is for what is far away, and so is anything that a name server could send elsewhere."""
    assert is_local(target) is local
    assert (("grpc.enable_http_proxy", 0) in channel_options(target)) is local


def test_target_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument wins over $REXEC_TARGET, which wins over the default."""
    monkeypatch.delenv("REXEC_TARGET", raising=False)
    assert resolve_target(None) == DEFAULT_TARGET
    monkeypatch.setenv("REXEC_TARGET", "there:1")
    assert resolve_target(None) == "there:1"
    assert resolve_target("here:1") == "here:1"


def test_patience_counts_from_the_first_failure_after_progress() -> None:
    """Delays grow and stay within the patience; progress makes the next failure a first one."""
    backoff = Backoff(patience=100)
    delays = list(itertools.islice(iter(backoff.next_delay, None), 12))
    assert delays[0] < 0.1
    assert max(delays) <= 2.0
    backoff.progress()
    assert backoff.next_delay() < 0.1
    assert Backoff(patience=0).next_delay() is None


def test_every_public_name_is_there() -> None:
    """`rexec_client.NAME` works for each name of the API, and only for those."""
    for name in dir(rexec_client):
        assert getattr(rexec_client, name) is not None
    with pytest.raises(AttributeError):
        rexec_client.no_such_name  # noqa: B018


def test_the_sync_client_is_what_would_be_generated(tmp_path: Path) -> None:
    """Nobody edited `_sync` by hand, or forgot to generate it."""
    subprocess.run([sys.executable, ROOT / "scripts" / "gen_sync_client.py", tmp_path], check=True)
    made = [path.name for path in tmp_path.iterdir()]
    _, different, missing = filecmp.cmpfiles(tmp_path, ROOT / "rexec_client" / "_sync", made, shallow=False)
    assert (different, missing) == ([], [])
    assert {path.name for path in (ROOT / "rexec_client" / "_sync").glob("*.py")} == {*made, "backend.py"}
