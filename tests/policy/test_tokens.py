"""Tokens: exactly those that a caller made for this server and this moment are taken, written in exactly one way."""

from __future__ import annotations

import json
import logging
import math
import secrets
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe, jws
from joserfc.jwk import OctKey

import rexec_server
from rexec_server.core.errors import NotAllowed, Unauthenticated
from rexec_server.policy.caller import Caller
from rexec_server.policy.callers import CallerEntry, Callers, Key
from rexec_server.policy.tokens import (
    LONGEST_LIFE_SECONDS,
    LONGEST_TOKEN,
    SKEW_SECONDS,
    Claims,
    TokenRefused,
    TokenVerifier,
)
from rexec_server.rpc.rights import RIGHTS, Right, check
from tests.policy.minting import ALICE, AUDIENCE, CALLERS, HEADER, NOW, SECRETS, Clock, b64, claims, seal, token

ALPHABET = string.ascii_letters + string.digits + "-_"
ALPHABET_IN_ORDER = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
INVALID = "the token is not valid"
NO_JWE = "no compact JWE with dir and A256GCM"
LATE = "the token has expired, or the clocks differ by more than 30 s"
# One that stays the same, so that a failing edit can be repeated.
VALID = token()


def verify(text: str, now: float = NOW, callers: Callers = CALLERS, audience: str = AUDIENCE) -> Claims:
    return TokenVerifier(audience, Clock(now)).verify(text, callers)


def refusal(text: str, now: float = NOW, **how: Any) -> str:
    """What the caller of a bad token is told."""
    with pytest.raises(Unauthenticated) as caught:
        verify(text, now, **how)
    return caught.value.message


def detail(text: str) -> str:
    """What the log says of a bad token."""
    with pytest.raises(TokenRefused) as caught:
        verify(text)
    return caught.value.detail


def test_a_valid_token_names_its_caller() -> None:
    """What a token says reaches whoever asks: caller, key, id, expiry."""
    assert verify(token(jti="once")) == Claims(ALICE, "alice-1", "once", (int(NOW) + 60) * 10**9, read_only=False)


@pytest.mark.parametrize(
    "changed", [{"aud": [AUDIENCE]}, {"iat": NOW + 0.5, "exp": NOW + 59.5}, {"custom": {"a": [1]}}]
)
def test_what_jose_libraries_write_differently_is_taken(changed: dict[str, Any]) -> None:
    """An audience as a list, times with fractions, and claims that mean nothing to us are no mistakes."""
    assert verify(token(**changed)).caller is ALICE


def test_a_token_of_a_stock_library_is_taken() -> None:
    """Our own hand is not the only one that can make a token; `typ` may be there."""
    header = HEADER | {"typ": "JWT"}
    key = OctKey.import_key(SECRETS["alice-1"])
    assert verify(jwe.encrypt_compact(header, json.dumps(claims()), key, algorithms=["dir", "A256GCM"])).caller is ALICE


@settings(max_examples=1500, deadline=None)
@given(
    place=st.integers(0, len(VALID)),
    how=st.sampled_from(["replace", "insert", "delete", "swap"]),
    character=st.sampled_from(ALPHABET + ".=+/% \n\tA\x00\u0410"),
)
def test_t_tk_01_no_edited_token_is_taken(place: int, how: str, character: str) -> None:
    """Whoever changes one character of a token has no token any more."""
    after = place + (how in ("replace", "delete")) + 2 * (how == "swap")
    middle = {"replace": character, "insert": character, "delete": "", "swap": VALID[place : place + 2][::-1]}[how]
    edited = VALID[:place] + middle + VALID[after:]
    if edited != VALID:
        assert refusal(edited) == INVALID


def test_t_tk_01_every_place_matters() -> None:
    """There is no place in a token at which a character could be another, or missing."""
    for place, character in enumerate(VALID):
        other = ALPHABET[(ALPHABET.find(character) + 1) % 64]
        assert refusal(f"{VALID[:place]}{other}{VALID[place + 1 :]}") == INVALID
        assert refusal(VALID[:place] + VALID[place + 1 :]) == INVALID


def _like_a_token(data: bytes) -> str:
    """Random, but with the right number of parts, and of characters in them."""
    return f"{b64(data[28:])}..{b64(data[:12])}.{b64(data[40:])}.{b64(data[12:28])}"


@settings(max_examples=1000, deadline=None)
@given(st.text() | st.binary(max_size=400).map(_like_a_token))
def test_t_tk_01_arbitrary_text_is_refused_and_nothing_else(text: str) -> None:
    """No text makes the verifier fail in another way than by saying no."""
    assert refusal(text) == INVALID


SCALARS = st.sampled_from([None, True, AUDIENCE, NOW, int(NOW), "read"]) | st.integers() | st.floats() | st.text()
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("ab"), SCALARS)


@settings(max_examples=600, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["sub", "aud", "iat", "exp", "nbf", "jti", "scope"]), JSON, min_size=1, max_size=3)
)
def test_t_tk_01_a_caller_with_a_key_can_say_nothing_that_breaks_it(changed: dict[str, Any]) -> None:
    """Claims of any type and size are right or refused; what is taken keeps the rules."""
    payload = json.dumps(claims() | changed).encode()
    with suppress(Unauthenticated):
        taken = verify(seal(json.dumps(HEADER).encode(), payload, SECRETS["alice-1"]))
        assert taken.caller is ALICE
        assert NOW - SKEW_SECONDS < taken.expires_ns / 1e9 <= NOW + SKEW_SECONDS + LONGEST_LIFE_SECONDS


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_t_tk_01_headers_and_payloads_of_any_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no header and no claims are refused, also where they are well encrypted."""
    assert refusal(seal(data, json.dumps(claims()).encode(), SECRETS["alice-1"])) == INVALID
    assert refusal(seal(json.dumps(HEADER).encode(), data, SECRETS["alice-1"])) == INVALID


@pytest.mark.parametrize("part", [0, 2, 3, 4])
def test_t_tk_02_no_other_last_character_is_an_alias(part: int) -> None:
    """The last character of a part may have bits that mean nothing: another one is no second text of the same token."""
    parts = VALID.split(".")
    for character in ALPHABET.replace(parts[part][-1], ""):
        other = [*parts[:part], parts[part][:-1] + character, *parts[part + 1 :]]
        assert refusal(".".join(other)) == INVALID


def test_t_tk_02_aliases_are_refused_before_anything_is_decrypted() -> None:
    """The tag's last character has four bits that mean nothing: its 15 aliases are no base64url to us."""
    start, last = VALID[:-1], ALPHABET_IN_ORDER.index(VALID[-1])
    same_tag = [character for n, character in enumerate(ALPHABET_IN_ORDER) if n >> 4 == last >> 4 and n != last]
    assert [detail(start + character) for character in same_tag] == ["not canonical base64url"] * 15


@pytest.mark.parametrize(
    "alias",
    [
        f"{VALID}=", f"{VALID}==", f"{VALID}\n", f"{VALID}\r\n", f"{VALID} ", f" {VALID}", f"\t{VALID}", f"{VALID}\t",
        f"{VALID}\x00", f"{VALID}.", f".{VALID}", VALID.upper(), VALID.lower(), VALID.replace("..", "%2E%2E"),
        VALID.replace("..", ".="), VALID.replace("..", ".%2B."), VALID.replace("..", ". ."), f'"{VALID}"',
        VALID.replace(".", "\uff0e"), VALID.replace("..", "=.."), f"Bearer {VALID}", f"{VALID},{VALID}", "", "....",
        VALID + "\u200b", VALID.replace("-", "+").replace("_", "/") + "+",
        f"{VALID[:99]}\n{VALID[99:]}", f"{VALID[:99]}\r\n {VALID[99:]}",
    ],
)  # fmt: skip
def test_t_tk_03_no_other_text_is_the_same_token(alias: str) -> None:
    """Padding, white space, case and percent signs make another text, and so no token."""
    assert refusal(alias) == INVALID


def test_t_tk_04_age() -> None:
    """A token is good until its expiry, and for what clocks may differ by after that, not a moment longer."""
    text = token(iat=int(NOW), exp=int(NOW) + 60)
    assert verify(text, NOW + 60 + SKEW_SECONDS - 0.001)
    assert refusal(text, NOW + 60 + SKEW_SECONDS) == LATE
    assert refusal(text, NOW + 60 + SKEW_SECONDS + 1) == LATE
    assert verify(text, NOW - SKEW_SECONDS)
    assert refusal(text, NOW - SKEW_SECONDS - 1) == LATE


def test_t_tk_04_not_before() -> None:
    """A token may say from when it is good; that is held, with the same tolerance."""
    assert verify(token(nbf=int(NOW) + SKEW_SECONDS))
    assert refusal(token(nbf=int(NOW) + SKEW_SECONDS + 1)) == LATE


def test_t_tk_04_life() -> None:
    """No token is good for long, whatever its maker wanted; and none ends before it begins."""
    assert verify(token(exp=int(NOW) + LONGEST_LIFE_SECONDS))
    for expiry in (int(NOW) + LONGEST_LIFE_SECONDS + 1, int(NOW), int(NOW) - 1, int(NOW) + 10**9):
        assert refusal(token(exp=expiry)) == INVALID


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "value", ["1800000000", True, [NOW], {}, -1, 2**53, 10**400, 1e308, math.inf, -math.inf, math.nan, "now"], ids=repr
)
def test_t_tk_04_times_are_numbers(name: str, value: Any) -> None:
    """A time that is no sensible number is no time: no conversion, no overflow."""
    assert refusal(token(**{name: value})) == INVALID


def test_t_tk_04_overflowing_literals_are_no_times() -> None:
    """1e999 is infinite to a parser of JSON, and no constant that it would complain about."""
    payload = json.dumps(claims(exp=1)).replace('"exp": 1', '"exp": 1e999').encode()
    assert refusal(seal(json.dumps(HEADER).encode(), payload, SECRETS["alice-1"])) == INVALID


@pytest.mark.parametrize("name", ["sub", "aud", "iat", "exp", "jti"])
def test_every_required_claim_is_required(name: str) -> None:
    """What is left out is not made up."""
    assert refusal(token(**{name: None})) == INVALID


@pytest.mark.parametrize(
    "audience", ["host-b", "", "HOST-A", "host-a ", "*", [AUDIENCE, "host-b"], [], [[AUDIENCE]], {AUDIENCE: 1}, 1, True]
)
def test_t_tk_05_tokens_for_others_are_refused(audience: Any) -> None:
    """A token says for which server it was made, and is none at another."""
    assert refusal(token(aud=audience)) == INVALID


def test_t_tk_06_read_only() -> None:
    """A token with the scope `read` is good for looking, and starts and ends nothing; one without is good for both."""
    reader, actor = (Caller("alice", read_only=verify(text).read_only) for text in (token(scope="read"), token()))
    for method, right in RIGHTS.items():
        check(actor, method)
        if right is Right.READ:
            check(reader, method)
        else:
            with pytest.raises(NotAllowed):
                check(reader, method)


@pytest.mark.parametrize("scope", ["", "exec", "read write", "READ", ["read"], True, 0, {}, "operator"])
def test_t_tk_06_other_scopes_are_refused(scope: Any) -> None:
    """A scope that we do not know may have been meant as a restriction: it is not ignored."""
    assert refusal(token(scope=scope)) == INVALID


def test_t_tk_06_a_scope_of_null_is_no_scope() -> None:
    """A scope that is there and says nothing is refused as any other that we do not know."""
    payload = json.dumps(claims() | {"scope": None}).encode()
    assert refusal(seal(json.dumps(HEADER).encode(), payload, SECRETS["alice-1"])) == INVALID


@pytest.mark.parametrize("subject", ["bob", "Alice", "alice ", "", "*", ["alice"], None])
def test_t_tk_07_a_key_speaks_for_its_own_caller(subject: Any) -> None:
    """bob cannot be named by a token of alice's key."""
    assert refusal(token(sub=subject)) == INVALID


def test_t_tk_07_a_kid_does_not_lend_its_name() -> None:
    """alice's kid on a token of bob's key is neither of the two."""
    assert refusal(token("alice-1", secret=SECRETS["bob-1"])) == INVALID
    assert refusal(token("alice-1", secret=SECRETS["bob-1"], sub="bob")) == INVALID


def test_t_tk_08_unknown_keys() -> None:
    """A key that is in no caller's list opens nothing."""
    assert refusal(token("nobody-1", secret=secrets.token_bytes(32))) == INVALID
    assert refusal(token("nobody-1", secret=SECRETS["alice-1"])) == INVALID


def test_t_tk_08_disabled_callers() -> None:
    """Who was switched off is out, with a key that is right."""
    assert refusal(token("dora-1", sub="dora")) == INVALID


@pytest.mark.parametrize("kid", ["", "Alice-1", "alice-1 ", "../alice-1", "a" * 65, 1, None, ["alice-1"], True])
def test_t_tk_08_kids_that_cannot_be(kid: Any) -> None:
    """A kid is a short name in a small alphabet, or no kid."""
    assert refusal(token(secret=SECRETS["alice-1"], header={"kid": kid})) == INVALID


def test_t_tk_11_rotation() -> None:
    """The old key works until its not_after, the new one from the moment it is there."""
    end = NOW + 1000
    for now, kid in ((NOW, "alice-1"), (NOW, "alice-2"), (end, "alice-1"), (end + 1, "alice-2")):
        assert verify(token(kid, iat=int(now), exp=int(now) + 60), now).kid == kid
    assert refusal(token("alice-1", iat=int(end), exp=int(end) + 60), end + 1) == INVALID


def test_t_tk_14_a_servers_keys_are_its_own() -> None:
    """A token for server A is none for server B: not with B's key under the same kid, and not with a shared key."""
    other = Callers([CallerEntry("alice", keys=(Key("alice-1", secrets.token_bytes(32)),))])
    assert refusal(VALID, callers=other, audience=AUDIENCE) == INVALID
    assert refusal(VALID, audience="host-b") == INVALID


def test_t_tk_15_nothing_is_decrypted_without_looking_at_the_time() -> None:
    """There is one place that opens tokens, and it is the one that checks their times."""
    package = Path(rexec_server.__file__).parent
    uses = {
        str(path.relative_to(package)): path.read_text().count("decrypt_compact(")
        + path.read_text().count("decrypt_json(")
        for path in package.rglob("*.py")
    }
    assert {name: count for name, count in uses.items() if count} == {"policy/tokens.py": 1}


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "A256KW"}, {"alg": "A256GCMKW"}, {"alg": "none"}, {"alg": "HS256"}, {"alg": "DIR"}, {"alg": ["dir"]},
        {"enc": "A128GCM"}, {"enc": "A256CBC-HS512"}, {"enc": "a256gcm"}, {"enc": None}, {"alg": None},
        {"zip": "DEF"}, {"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False}, {"typ": "jwt"}, {"cty": "JWT"},
        {"jwk": {"kty": "oct", "k": "AA"}}, {"jku": "https://rexec.test"}, {"x5u": ""}, {"iv": ""}, {"": ""},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_in_a_header_is_chosen_by_the_caller(header: dict[str, Any]) -> None:
    """One algorithm, no compression, no key that the token brings along: another header is refused."""
    assert refusal(token(header=header)) == INVALID


def test_other_kinds_of_tokens_are_refused() -> None:
    """Wrapped keys, other ciphers, compressed and signed tokens of the right key are no tokens."""
    key, payload = OctKey.import_key(SECRETS["alice-1"]), json.dumps(claims())
    for alg, enc in (("A256KW", "A256GCM"), ("A256GCMKW", "A256GCM"), ("A256KW", "A128CBC-HS256")):
        text = jwe.encrypt_compact({"alg": alg, "enc": enc, "kid": "alice-1"}, payload, key, algorithms=[alg, enc])
        assert refusal(text) == INVALID
    zipped = jwe.encrypt_compact(HEADER | {"zip": "DEF"}, payload, key, algorithms=["dir", "A256GCM", "DEF"])
    assert refusal(zipped) == INVALID
    signed = jws.serialize_compact({"alg": "HS256", "kid": "alice-1"}, payload, key, algorithms=["HS256"])
    assert refusal(signed) == INVALID
    unsigned = ".".join((b64(json.dumps({"alg": "none", "kid": "alice-1"}).encode()), b64(payload.encode()), ""))
    assert refusal(unsigned) == INVALID
    assert refusal(f"{unsigned}..") == INVALID


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b'{"alg":"dir","alg":"dir","enc":"A256GCM","kid":"alice-1"}', None),
        (b'{"alg":"dir","enc":"A256GCM","kid":"bob-1","kid":"alice-1"}', None),
        (b'\xef\xbb\xbf{"alg":"dir","enc":"A256GCM","kid":"alice-1"}', None),
        ('{"alg":"dir","enc":"A256GCM","kid":"alice-1"}'.encode("utf-16"), None),
        (b'[{"alg":"dir","enc":"A256GCM","kid":"alice-1"}]', None),
        (b'{"alg":"dir","enc":"A256GCM","kid":"alice-1"} {}', None),
        (None, json.dumps(claims())[:-1].encode() + b',"sub":"alice"}'),
        (None, json.dumps(claims())[:-1].encode() + b',"x":{"a":1,"a":2}}'),
        (None, json.dumps(claims())[:-1].encode() + b',"x":NaN}'),
        (None, json.dumps(claims())[:-1].encode() + b',"x":-Infinity}'),
        (None, json.dumps(claims()).encode("utf-16")),
        (None, b"[" * 1300),
        (None, b'{"a":' * 250),
        (None, b'{"iat":' + b"1" * 1300 + b"}"),
    ],
)
def test_only_strict_json_is_read(header: bytes | None, payload: bytes | None) -> None:
    """What two parsers could read as two different things is read by none."""
    text = seal(header or json.dumps(HEADER).encode(), payload or json.dumps(claims()).encode(), SECRETS["alice-1"])
    assert refusal(text) == INVALID


@pytest.mark.parametrize("token_id", ["", "a" * 129, "a b", "a\n", "\u0661", 7, None, ["a"], "\ud800"])
def test_token_ids_are_short_and_plain(token_id: Any) -> None:
    """The id by which a token is remembered has a bounded size, and nothing in it that a log could stumble over."""
    assert refusal(token(jti=token_id)) == INVALID


def test_iv_and_tag_have_one_length() -> None:
    """A shorter tag would be easier to guess: neither it nor another IV is taken."""
    header, empty, iv, text, tag = VALID.split(".")
    for other_iv, other_tag in ((iv, tag[:16]), (iv, ""), (b64(bytes(16)), tag), ("", tag), (iv, b64(bytes(32)))):
        assert detail(".".join((header, empty, other_iv, text, other_tag))) == NO_JWE
    longer_iv = seal(json.dumps(HEADER).encode(), json.dumps(claims()).encode(), SECRETS["alice-1"], iv=bytes(16))
    assert detail(longer_iv) == NO_JWE
    assert detail(f"{header}.{b64(SECRETS['alice-1'])}.{iv}.{text}.{tag}") == NO_JWE


def test_giant_tokens_are_not_even_parsed() -> None:
    """The longest that is looked at is taken; beyond it, the size alone decides."""
    fits = token(filler="x" * 1200)
    assert len(fits) <= LONGEST_TOKEN
    assert verify(fits)
    longer = token(filler="x" * 1400)
    assert LONGEST_TOKEN < len(longer) < LONGEST_TOKEN + 200
    assert refusal(longer) == INVALID
    assert refusal("A" * 50_000_000) == INVALID


def test_the_longest_names_fit_into_a_token() -> None:
    """The size limit refuses no caller whom callers.toml allows."""
    name, kid, secret = "~" * 255, "k" * 64, secrets.token_bytes(32)
    callers = Callers([CallerEntry(name, keys=(Key(kid, secret),))])
    text = token(kid, secret=secret, sub=name, aud="a" * 255, jti="j" * 128, scope="read")
    assert verify(text, callers=callers, audience="a" * 255).caller.name == name


def test_reasons_are_for_the_log_and_hold_nothing_of_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """The verifier itself logs nothing, and what it says of a refusal has no part of the token, nor of a secret."""
    caplog.set_level(logging.DEBUG)
    bad = [token(aud="elsewhere"), token(sub="bob"), token(secret=secrets.token_bytes(32)), token(exp=1), VALID[:-1]]
    for text in bad:
        with pytest.raises(Unauthenticated) as caught:
            verify(text)
        assert not any(part in f"{caught.value!r} {vars(caught.value)}" for part in text.split(".") if part)
    assert caplog.records == []
