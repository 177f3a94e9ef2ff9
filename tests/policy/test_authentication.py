"""Who is let in: one place decides, from all that a call presents."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from rexec_server.core.errors import NotAllowed, RateLimited, RexecError, Unauthenticated
from rexec_server.core.origin import Origin
from rexec_server.policy.authentication import CallerAuthenticator
from rexec_server.policy.caller import Caller, Presented
from rexec_server.policy.callers import CallerEntry, Callers
from rexec_server.policy.rate import Rate
from tests.policy.minting import ALICE, AUDIENCE, BOB, CALLERS, NOW, Clock, token

PEER = "ipv4:10.0.0.7:40212"
URI = "spiffe://rexec.test"
NO_CALLERS = "this certificate is no caller's"
PLENTY = Rate(1000, 1)


def authenticator(callers: Callers = CALLERS, failed: Rate = PLENTY, now: float = NOW) -> CallerAuthenticator:
    return CallerAuthenticator(callers, AUDIENCE, failed, Clock(now))


def present(*authorization: str, uris: tuple[str, ...] | None = None, names: Any = (), peer: str = PEER) -> Presented:
    return Presented(authorization, frozenset(names), uris, peer)


def bearer(kid: str = "alice-1", **claims: Any) -> str:
    return f"Bearer {token(kid, **claims)}"


def refusal(presented: Presented, kind: type[RexecError] = Unauthenticated) -> str:
    with pytest.raises(kind) as caught:
        authenticator().authenticate(presented)
    return caught.value.message


def test_a_token_makes_a_caller() -> None:
    """What is known of a caller comes from our own file, and what is known of the call from the token."""
    caller = authenticator().authenticate(present(bearer(jti="t-1", exp=int(NOW) + 9)))
    origin = Origin("token", "alice-1", "t-1", (int(NOW) + 9) * 10**9, PEER)
    assert caller == Caller("alice", frozenset({"operator"}), read_only=False, origin=origin)
    assert authenticator().authenticate(present(bearer(scope="read"))).read_only


def test_a_certificate_makes_a_caller() -> None:
    """On a listener for certificates the verified name is enough, and the audit will have it."""
    caller = authenticator().authenticate(present(uris=(f"{URI}/bob",)))
    assert caller == Caller("bob", origin=Origin("certificate", f"{URI}/bob", peer=PEER))
    also_another = authenticator().authenticate(present(uris=("urn:other", f"{URI}/bob")))
    assert also_another.name == "bob"


def test_both_credentials_of_one_caller_are_both_recorded() -> None:
    """A token beside a certificate still is single-use, and may narrow what the call is good for."""
    caller = authenticator().authenticate(present(bearer(jti="t", scope="read"), uris=(f"{URI}/alice",)))
    assert (caller.name, caller.read_only) == ("alice", True)
    assert (caller.origin.method, caller.origin.key_id, caller.origin.token_id) == ("certificate+token", "alice-1", "t")


@pytest.mark.parametrize(
    "authorization",
    [
        "", " ", "Bearer", "Bearer ", "Bearer  x", "Basic YWxpY2U6eA==", "Token x", "bearer\tx", "Bearer x y",
        "Bearer alice", "Bearer " + "A" * 10_240, "Bearer \u00e4\u00f6", "Bearer \ufffd", "\u00e4", "BearerX y",
        "Digest", "Bearer a..b.c.d",
    ],
)  # fmt: skip
def test_t_au_02_other_authorizations(authorization: str) -> None:
    """Another scheme, nothing, too much or no ASCII: nobody is let in as anybody."""
    assert refusal(present(authorization)) in ("authorization must be 'Bearer TOKEN'", "the token is not valid")


def test_t_au_02_white_space_around_a_token_is_no_part_of_it() -> None:
    """The scheme is one word in any case, then one space, then the token: nothing before, between or after."""
    text = token()
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert authenticator().authenticate(present(f"{scheme} {text}")).name == "alice"
    for wrong in (f" Bearer {text}", f"Bearer  {text}", f"Bearer {text} ", f"Bearer\t{text}", text, f"Bearer={text}"):
        refusal(present(wrong))


def test_t_au_02_authorization_twice() -> None:
    """Of two authorizations neither is chosen, also when they are the same."""
    text = bearer()
    assert refusal(present(text, text)) == "authorization is given more than once"
    assert refusal(present(text, "")) == "authorization is given more than once"


def test_t_au_02_nothing_at_all() -> None:
    """A caller without a credential is told which one is needed."""
    assert refusal(present()) == "a token is needed: authorization: Bearer TOKEN"


@pytest.mark.parametrize("token_of", ["bob-1", "alice-1"])
def test_t_au_03_certificate_and_token_of_two_callers(token_of: str) -> None:
    """Both credentials are right and of two callers: the call is neither's."""
    owner, other = token_of[:-2], "alice" if token_of == "bob-1" else "bob"
    both = present(bearer(token_of, sub=owner), uris=(f"{URI}/{other}",))
    assert refusal(both) == "the certificate and the token are not the same caller's"


def test_t_au_03_a_bad_token_is_not_made_good_by_a_certificate() -> None:
    """What is presented is checked, whatever else is there."""
    assert refusal(present("Bearer x", uris=(f"{URI}/alice",))) == "the token is not valid"
    assert refusal(present("Basic x", uris=(f"{URI}/alice",))) == "authorization must be 'Bearer TOKEN'"


@pytest.mark.parametrize(
    "name",
    [
        "x-caller", "x-user", "remote-user", "x-remote-user", "x-forwarded-user", "x-forwarded-email", "x-remote-group",
        "x-authenticated-user", "x-authenticated-userid", "x-auth-request-email", "proxied-identity", "x-webauth-user",
        "proxied-sansshell-identity", "x-goog-authenticated-user-email", "x-amzn-oidc-identity", "impersonate-user",
        "x-forwarded-preferred-username", "x-forwarded-groups", "x-ms-client-principal-name",
    ],
)  # fmt: skip
def test_t_au_04_metadata_that_says_who_calls(name: str) -> None:
    """Who says in metadata who calls is not believed, and told so, with and without a credential."""
    for presented in (
        present(bearer(), names=[name]),
        present(names=[name]),
        present(uris=(f"{URI}/alice",), names=[name]),
    ):
        assert refusal(presented).startswith("metadata that says who calls is not accepted")


@pytest.mark.parametrize("name", ["user-agent", "x-forwarded-for", "x-request-id", "x-forwarded-host", "traceparent"])
def test_t_au_04_other_metadata_is_nobodys_identity(name: str) -> None:
    """What proxies and tracing add is no reason to refuse a call."""
    assert authenticator().authenticate(present(bearer(), names=[name, "authorization"])).name == "alice"


@pytest.mark.parametrize(
    "uris",
    [
        (), (f"{URI}/carol",), (f"{URI}/ALICE",), (f"{URI}/alice/",), ("alice",), (f"{URI}/dora",),
        (f"{URI}/alice/bob",), (f"{URI}/alice", f"{URI}/bob"), (f"{URI}/alice", f"{URI}/alice"), (f"{URI}/*",),
        (f"{URI}/%61lice",),
    ],
)  # fmt: skip
def test_t_au_10_certificates_of_no_caller(uris: tuple[str, ...]) -> None:
    """A verified certificate that names nobody, two callers, or one who is disabled: the same answer to all."""
    assert refusal(present(uris=uris), NotAllowed) == NO_CALLERS
    assert refusal(present("", uris=uris), NotAllowed) == NO_CALLERS
    assert refusal(present(bearer(), uris=uris), NotAllowed) == NO_CALLERS


def changed(**how: Any) -> Callers:
    """The callers, with alice changed."""
    return Callers([dataclasses.replace(ALICE, **how), BOB])


@pytest.mark.parametrize(
    "after",
    [
        Callers([BOB]), changed(enabled=False), changed(roles=frozenset()),
        changed(roles=frozenset({"operator", "ci"})),
        changed(keys=ALICE.keys[1:], uris=frozenset({"urn:new"})), changed(keys=(), uris=frozenset({"urn:new"})),
        Callers([BOB, dataclasses.replace(ALICE, name="eve")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "presented", [present(bearer()), present(uris=(f"{URI}/alice",)), present(bearer(), uris=(f"{URI}/alice",))]
)
def test_t_au_11_who_is_no_caller_any_more_is_none_in_open_streams(presented: Presented, after: Callers) -> None:
    """Removed, disabled, other roles, key or certificate taken away: what is open ends."""
    checker = authenticator()
    caller = checker.authenticate(presented)
    assert checker.still_valid(caller)
    checker.replace(after)
    assert not checker.still_valid(caller)


def test_t_au_11_what_did_not_prove_a_caller_may_go() -> None:
    """A reload that leaves a caller's own credential as it was ends nothing."""
    by_key, by_name = present(bearer("alice-2")), present(uris=(f"{URI}/alice",))
    checker = authenticator()
    callers = [checker.authenticate(by_key), checker.authenticate(by_name)]
    checker.replace(changed(keys=ALICE.keys[1:], uris=ALICE.uris | {"urn:new"}))
    assert [checker.still_valid(caller) for caller in callers] == [True, True]
    checker.replace(changed(keys=ALICE.keys[1:], uris=frozenset()))
    assert [checker.still_valid(caller) for caller in callers] == [True, False]


def test_t_au_11_a_key_that_is_anothers_now_proves_nothing() -> None:
    """A kid that was given to bob does not keep alice's streams open; nor does a token, where her certificate went."""
    checker = authenticator()
    by_token = checker.authenticate(present(bearer()))
    by_both = checker.authenticate(present(bearer(), uris=(f"{URI}/alice",)))
    checker.replace(changed(uris=frozenset()))
    assert [checker.still_valid(caller) for caller in (by_token, by_both)] == [True, False]
    given = dataclasses.replace(BOB, keys=ALICE.keys)
    checker.replace(Callers([dataclasses.replace(ALICE, keys=()), given]))
    assert [checker.still_valid(caller) for caller in (by_token, by_both)] == [False, False]


def test_t_au_11_a_keys_end_ends_its_streams() -> None:
    """A stream that a key opened ends when the key does, and not when the token does."""
    clock = Clock()
    checker = CallerAuthenticator(CALLERS, AUDIENCE, Rate(9, 1), clock)
    caller = checker.authenticate(present(bearer("alice-1")))
    clock.now = NOW + 1000
    assert checker.still_valid(caller)
    clock.now += 1
    assert not checker.still_valid(caller)


def test_t_au_11_a_disabled_caller_is_refused_at_once() -> None:
    """The very next call after a reload sees it."""
    checker = authenticator()
    presented = present(bearer())
    assert checker.authenticate(presented).name == "alice"
    checker.replace(changed(enabled=False))
    with pytest.raises(Unauthenticated):
        checker.authenticate(presented)


def test_t_ds_05_who_guesses_is_told_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    """After so many failures a peer is told when to try again, and fills no log; nobody else feels it."""
    caplog.set_level(logging.INFO)
    checker = authenticator(failed=Rate(2, 60))
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            checker.authenticate(present("Bearer x"))
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            checker.authenticate(present("Bearer x", peer="ipv4:10.0.0.7:555"))
        assert 0 < caught.value.retry_after <= 30
    assert len(caplog.records) == 2
    with pytest.raises(Unauthenticated):
        checker.authenticate(present("Bearer x", peer="ipv4:10.0.0.8:40212"))


def test_t_ds_05_a_good_credential_passes_from_the_same_address() -> None:
    """Callers behind one address with somebody who guesses are let in all the same."""
    checker = authenticator(failed=Rate(1, 3600))
    with pytest.raises(Unauthenticated):
        checker.authenticate(present())
    with pytest.raises(RateLimited):
        checker.authenticate(present())
    assert checker.authenticate(present(bearer())).name == "alice"
    assert checker.authenticate(present(uris=(f"{URI}/bob",))).name == "bob"


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("ipv4:10.0.0.7:1", "ipv4:10.0.0.7:2", True),
        ("ipv4:10.0.0.7:1", "ipv4:10.0.0.8:1", False),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::ffff:2%5D:2", True),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8:0:1::1%5D:1", False),
        ("ipv6:[2001:db8::1]:1", "ipv6:%5B2001:db8::1%5D:1", True),
        ("ipv6:%5B::ffff:10.0.0.7%5D:1", "ipv6:%5B::ffff:10.0.0.8%5D:1", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "ipv6:%5Bfe80::2%25eth0%5D:1", True),
        ("unix:", "unix:/run/rexec.sock", True),
        ("ipv4:nonsense:1", "ipv4:nonsense:2", True),
        ("", "unix:", False),
    ],
)
def test_t_ds_05_failures_are_counted_per_address(first: str, second: str, shared: bool) -> None:
    """Another port is the same peer; with IPv6 another address of the same network is, too."""
    checker = authenticator(failed=Rate(1, 3600))
    with pytest.raises(Unauthenticated):
        checker.authenticate(present(peer=first))
    with pytest.raises(RateLimited if shared else Unauthenticated):
        checker.authenticate(present(peer=second))


def test_t_lg_01_the_log_says_why_and_shows_no_credential(caplog: pytest.LogCaptureFixture) -> None:
    """Who runs the server finds the reason and the peer in the log; no part of the token."""
    caplog.set_level(logging.DEBUG)
    text = token(aud="elsewhere")
    refusal(present(f"Bearer {text}"))
    (line,) = caplog.messages
    assert line == f"a call from {PEER} was not let in: alice's token, key alice-1: aud is not {AUDIENCE}"
    refusal(present(f"Basic {text}"))
    refusal(present(f"Bearer {text[:-1]}"))
    assert not any(part in caplog.text for part in text.split(".") if part)


def test_a_caller_with_two_keys_and_no_certificate_cannot_come_by_one() -> None:
    """An entry without uris has no certificate: an empty name finds nobody."""
    only_keys = Callers([CallerEntry("alice", keys=ALICE.keys)])
    with pytest.raises(NotAllowed):
        authenticator(only_keys).authenticate(present(uris=("",)))
