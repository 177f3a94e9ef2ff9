"""The first bytes of a client: those that may go on to gRPC, and those held until it has acknowledged the SETTINGS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.http2_flood import ACK, DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, blocks, frame, request
from rexec_server.ingress.arrival import MOST_HELD, Arrival, NotHttp2

PING, WINDOW_UPDATE, RST_STREAM = 0x6, 0x8, 0x3
OWN = frame(SETTINGS, 0, 0, bytes(12))
ACKNOWLEDGED = frame(SETTINGS, ACK, 0)
CALL = blocks(1, request(b"/a.B/C")) + frame(DATA, 1, 1, b"hello")


def fed(data: bytes, cuts: list[int] = []) -> tuple[bytes, Arrival]:  # noqa: B006 (it is only read)
    """Return what goes on of these bytes, when they come in pieces."""
    arrival, passed, at = Arrival(), b"", 0
    for end in [*sorted(cuts), len(data)]:
        passed += arrival.feed(data[at:end])
        at = end
    return passed, arrival


def test_a_call_before_the_acknowledgement_waits_for_it() -> None:
    """Headers and data are held, what is the connection's own goes on, and the acknowledgement goes first."""
    update = frame(WINDOW_UPDATE, 0, 0, bytes((0, 0, 1, 0)))
    passed, arrival = fed(PREFACE + OWN + CALL + update)
    assert (passed, arrival.settled) == (PREFACE + OWN + update, False)
    assert arrival.feed(ACKNOWLEDGED + b"more") == ACKNOWLEDGED + CALL + b"more"
    assert arrival.settled


def test_what_belongs_to_a_stream_keeps_its_order() -> None:
    """A call that was cancelled at once is cancelled: nothing of a stream overtakes its headers."""
    cancel = frame(RST_STREAM, 0, 1, bytes((0, 0, 0, 8)))
    window = frame(WINDOW_UPDATE, 0, 1, bytes((0, 0, 1, 0)))
    passed, _ = fed(PREFACE + OWN + CALL + window + cancel + ACKNOWLEDGED)
    assert passed == PREFACE + OWN + ACKNOWLEDGED + CALL + window + cancel


@given(st.lists(st.integers(0, 200), max_size=12))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the bytes are cut, the same ones go on in the same order."""
    data = PREFACE + OWN + CALL + frame(PING, 0, 0, bytes(8)) + ACKNOWLEDGED + CALL
    passed, arrival = fed(data, cuts)
    assert arrival.settled
    assert passed == PREFACE + OWN + frame(PING, 0, 0, bytes(8)) + ACKNOWLEDGED + CALL + CALL


@pytest.mark.parametrize(
    "false",
    [
        frame(SETTINGS, ACK, 0, bytes(6)),  # an acknowledgement has no content
        frame(SETTINGS, ACK, 1),  # and is the connection's
        frame(PING, ACK, 0, bytes(8)),
        frame(HEADERS, ACK, 0, b"\x82"),
    ],
)
def test_what_only_looks_like_an_acknowledgement(false: bytes) -> None:
    """It opens nothing: headers are held as before."""
    passed, arrival = fed(PREFACE + OWN + false + CALL)
    assert not arrival.settled
    assert CALL not in passed


def test_headers_of_no_stream_are_held_too() -> None:
    """gRPC would decode them before it finds that they are of no stream."""
    stray = frame(HEADERS, END_HEADERS, 0, b"\x82" * 100)
    assert fed(PREFACE + OWN + stray)[0] == PREFACE + OWN


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin as HTTP/2 does"),
        (b"\x16\x03\x01", "does not begin as HTTP/2 does"),
        (PREFACE + CALL, "first frame is not SETTINGS"),
        (PREFACE + OWN + frame(PING, 0, 0, bytes(16_385)), "a frame of 16385 bytes"),
        (PREFACE + OWN + frame(DATA, 0, 1, bytes(16_384)) * (MOST_HELD // 16_384), "before it acknowledged"),
    ],
)
def test_who_is_cut_off(data: bytes, why: str) -> None:
    """Bytes that no client sends, and more than is held, end the connection."""
    with pytest.raises(NotHttp2, match=why):
        fed(data)


def test_as_much_as_an_honest_client_may_send_is_held() -> None:
    """One window of data, and the headers of a hundred calls."""
    window = frame(DATA, 0, 1, bytes(16_383)) * 4
    calls = b"".join(blocks(number, request(b"/a.B/C")) for number in range(1, 200, 2))
    passed, arrival = fed(PREFACE + OWN + calls + window + ACKNOWLEDGED)
    assert arrival.settled
    assert passed == PREFACE + OWN + ACKNOWLEDGED + calls + window
