"""Rates: how often, exactly, and for how many in how much memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexec_server.core.errors import Exhausted
from rexec_server.policy.caller import Caller
from rexec_server.policy.limits import CallLimits
from rexec_server.policy.rate import Buckets, Rate


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "rate"), [("10/s", (10, 1)), ("600/m", (600, 60)), ("1/h", (1, 3600)), ("999999999/d", (999999999, 86400))]
)
def test_rates_are_read(text: str, rate: tuple[int, int]) -> None:
    """So many, a slash and a unit of time."""
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "0/s", "-1/s", "1.5/s", "10/S", "10/s\n", " 10/s", "\u0661/s", "1000000000/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    """Nothing is guessed: the error says what is right."""
    with pytest.raises(ValueError, match="is no rate; write for example 10/s, 600/m or 100/h"):
        Rate.parse(text)


def test_a_bucket_empties_and_fills() -> None:
    """As many at once as the rate says; then one each time that one has come; never more than it holds."""
    clock = Clock()
    buckets = Buckets(Rate(3, 60), clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(20)]
    clock.now += 19
    assert buckets.take("a") == pytest.approx(1)
    clock.now += 1
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(20)
    clock.now += 10_000
    assert [bool(buckets.take("a")) for _ in range(4)] == [False, False, False, True]


def test_each_key_has_its_own() -> None:
    """One who takes too much leaves the others theirs."""
    buckets = Buckets(Rate(1, 60), clock=Clock())
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0


def test_no_rate_takes_everything() -> None:
    """What is not limited is not counted either."""
    buckets = Buckets(None)
    assert not any(buckets.take("a") for _ in range(1000))
    assert len(buckets._levels) == 0


def test_a_flood_of_keys_is_bounded() -> None:
    """Any number of keys costs the memory of a few; who is active is not forgotten for it."""
    buckets = Buckets(Rate(1, 60), most=100, clock=Clock())
    assert buckets.take("a") == 0
    for number in range(10_000):
        buckets.take(f"k{number}")
        if number % 50 == 0:
            assert buckets.take("a") > 0
    assert len(buckets._levels) <= 100


@given(
    rate=st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 3600, 86400])),
    pauses=st.lists(st.floats(0, 1e5), max_size=50),
)
def test_whoever_waits_as_told_is_let_in(rate: Rate, pauses: list[float]) -> None:
    """The time that a refusal names is enough, whatever came before, and never negative."""
    clock = Clock()
    buckets = Buckets(rate, clock=clock)
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("a")
        assert wait >= 0
        if wait:
            clock.now += wait
            assert buckets.take("a") == 0


@given(
    rate=st.builds(Rate, st.integers(1, 20), st.sampled_from([1, 60])), pauses=st.lists(st.floats(0, 5), max_size=80)
)
def test_never_more_than_the_rate(rate: Rate, pauses: list[float]) -> None:
    """In no stretch of time are there more than a full bucket and what came into it meanwhile."""
    clock = Clock()
    buckets, start, taken = Buckets(rate, clock=clock), clock.now, 0
    for pause in pauses:
        clock.now += pause
        taken += not buckets.take("a")
        assert taken <= rate.times + (clock.now - start) * rate.times / rate.seconds + 1e-3


def test_calls_are_limited_for_each_caller() -> None:
    """Who calls too often is told so, and when to come again; nobody else notices."""
    limits = CallLimits(Rate(2, 60))
    alice, bob = Caller("alice"), Caller("bob")
    limits.take(alice)
    limits.take(alice)
    with pytest.raises(Exhausted, match="too often") as caught:
        limits.take(alice)
    assert "alice" in caught.value.subject
    assert 0 < caught.value.retry_after <= 30
    limits.take(bob)


def test_looking_takes_nothing() -> None:
    """Whether there is one can be asked as often as one likes; the answer is what taking would say."""
    clock = Clock()
    buckets = Buckets(Rate(1, 60), clock=clock)
    assert [buckets.wait("a"), buckets.wait("a"), buckets.take("a")] == [0, 0, 0]
    clock.now += 15
    assert buckets.wait("a") == buckets.wait("a") == buckets.take("a") == 45
    assert Buckets(None).wait("a") == 0
