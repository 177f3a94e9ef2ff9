"""The memory of used tokens: it is durable, it has an end, and when it is full nothing is started."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexec_server.core.errors import Exhausted, TokenUsed
from rexec_server.core.execution import Key, Request
from rexec_server.core.index import Index
from rexec_server.core.journal import NoJournal
from rexec_server.core.origin import Origin
from rexec_server.core.reservation import TOKEN_GRACE_NS, Ceilings, Reservation, Reserved

FULL_AT = Ceilings(all=100, tokens=3)
EXPIRY = 10**18
LIFE = 300 * 10**9


class Uptime:
    """Nanoseconds since the machine's boot, as a test has them pass."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> int:
        return self.value


@pytest.fixture
def uptime() -> Uptime:
    return Uptime()


@pytest.fixture
def index(tmp_path: Path, uptime: Uptime) -> Iterator[Index]:
    opened = Index(str(tmp_path / "index.sqlite"), NoJournal(), uptime)
    yield opened
    opened.close()


def reserve(index: Index, token_id: str, body: bytes = b"same", caller: str = "alice") -> Reserved:
    """An Exec without an id of its own, with a token."""
    origin = Origin("token", "alice-1", token_id, EXPIRY) if token_id else Origin("certificate")
    key = Key(caller, uuid.uuid4().hex)
    reservation = Reservation(key, False, uuid.uuid4().hex, body, Request(("true",)), origin, now=EXPIRY - LIFE)
    return asyncio.run(index.reserve(reservation, FULL_AT))


def test_t_tk_12_a_full_memory_starts_nothing_more(index: Index) -> None:
    """What could not be remembered is refused; what was is still answered, and who has a certificate goes on."""
    first = [reserve(index, f"token-{number}") for number in range(3)]
    with pytest.raises(Exhausted) as caught:
        reserve(index, "token-3")
    assert caught.value.retry_after > 0
    again = reserve(index, "token-0")
    assert (again.existed, again.record.execution.key) == (True, first[0].record.execution.key)
    with pytest.raises(TokenUsed):
        reserve(index, "token-1", body=b"other")
    assert not reserve(index, "").existed


def test_t_tk_12_forgetting_makes_room(index: Index, uptime: Uptime) -> None:
    """A token is forgotten when nobody would take it any more, not before, and then there is room again."""
    for number in range(3):
        reserve(index, f"token-{number}")
    uptime.value = LIFE + TOKEN_GRACE_NS + 1
    index.drop_expired_tokens(EXPIRY + TOKEN_GRACE_NS)
    with pytest.raises(Exhausted):
        reserve(index, "token-3")
    index.drop_expired_tokens(EXPIRY + TOKEN_GRACE_NS + 1)
    assert not reserve(index, "token-3").existed


def test_a_wall_clock_that_is_set_makes_no_token_fresh(index: Index, uptime: Uptime) -> None:
    """Set ahead and back again, it would find a token unused that is: so its time has to pass, too."""
    for number in range(3):
        reserve(index, f"token-{number}")
    index.drop_expired_tokens(2 * EXPIRY)
    with pytest.raises(TokenUsed):
        reserve(index, "token-0", body=b"other")
    uptime.value = LIFE + TOKEN_GRACE_NS
    index.drop_expired_tokens(2 * EXPIRY)
    with pytest.raises(TokenUsed):
        reserve(index, "token-0", body=b"other")


def test_t_tk_10_a_used_token_survives_the_file_being_opened_again(tmp_path: Path) -> None:
    """The memory is on disk before anything is started: a new server has it."""
    path = str(tmp_path / "index.sqlite")
    index = Index(path, NoJournal())
    key = reserve(index, "once").record.execution.key
    index.close()
    index = Index(path, NoJournal())
    try:
        assert reserve(index, "once").record.execution.key == key
        with pytest.raises(TokenUsed):
            reserve(index, "once", body=b"other")
        assert not reserve(index, "once", caller="bob").existed
    finally:
        index.close()
