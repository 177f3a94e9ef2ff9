"""The file of callers: read completely, or refused with one line that says what and where, and no secret."""

from __future__ import annotations

import base64
import os
import tomllib
from pathlib import Path

import pytest

from rexec_server.policy.callers import Callers
from rexec_server.policy.files import PolicyError

SECRET = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
OTHER = base64.urlsafe_b64encode(bytes(range(1, 33))).rstrip(b"=").decode()
GOOD = f"""
[callers.alice]
roles = ["operator"]
uris = ["spiffe://example.org/alice"]
[callers.alice.keys.alice-1]
secret = "{SECRET}"
not_after = 2027-01-01T01:00:00+01:00
[callers.alice.keys."alice.2"]
secret = "{OTHER}"
[callers.bob]
enabled = false
uris = ["spiffe://example.org/bob", "urn:example:bob"]
"""


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def refusal(path: Path, text: str) -> str:
    """The line with which a file is refused."""
    with pytest.raises(PolicyError) as caught:
        Callers.load(write(path / "callers.toml", text))
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_all_that_a_file_says_is_known(tmp_path: Path) -> None:
    """Names, roles, keys with their ends, certificate names and switches arrive as they were written."""
    callers = Callers.load(write(tmp_path / "callers.toml", GOOD))
    alice, bob = callers.get("alice"), callers.get("bob")
    assert alice
    assert bob
    assert (alice.enabled, alice.roles, bob.enabled, bob.roles) == (True, {"operator"}, False, frozenset())
    assert [(key.kid, key.not_after) for key in alice.keys] == [("alice-1", 1798761600.0), ("alice.2", None)]
    assert alice.keys[0].secret == bytes(range(32))
    assert callers.by_kid("alice.2") == (alice, alice.keys[1])
    assert callers.by_uri("urn:example:bob") == bob
    assert callers.by_uri("spiffe://example.org/Alice") is None
    assert callers.by_kid("alice") is None
    assert callers.get("carol") is None


def test_the_table_may_be_in_the_configuration() -> None:
    """What is below `callers` in the configuration means the same as in a file."""
    callers = Callers.load(tomllib.loads(GOOD)["callers"])
    assert callers.by_kid("alice-1") is not None
    with pytest.raises(PolicyError, match=r"^callers: there is no enabled caller"):
        Callers.load({})


def test_secrets_are_not_shown() -> None:
    """Whatever prints callers, a log or a traceback, prints no key."""
    callers = Callers.load(tomllib.loads(GOOD)["callers"])
    found = callers.by_kid("alice-1")
    assert found
    assert found[1].jwk
    for text in (repr(found), str(found), repr(callers)):
        assert SECRET not in text
        assert repr(bytes(range(32))) not in text


def key(kid: str = "a-1", secret: str = SECRET, more: str = "") -> str:
    return f'[callers.alice.keys.{kid}]\nsecret = "{secret}"\n{more}\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is no enabled caller"),
        ("[callers]", "there is no enabled caller"),
        ('[callers.alice]\nenabled = false\nuris = ["urn:a:b"]', "there is no enabled caller"),
        ("[caller.alice]", "unknown key 'caller'; known are callers"),
        ("callers = 3", "callers must be a table for each caller"),
        ("callers.alice = 3", "callers.alice must be a table"),
        ("[callers.alice]", "callers.alice has neither keys nor uris"),
        ("[callers.alice.keys]", "callers.alice has neither keys nor uris"),
        (key() + "[callers.alice]\nrole = []", "callers.alice: unknown key 'role'; known are enabled, keys"),
        (key() + "[callers.alice]\nenabled = 1", "callers.alice.enabled must be true or false"),
        (key() + '[callers.alice]\nroles = "operator"', "callers.alice.roles must be a list"),
        (key() + "[callers.alice]\nroles = [1]", "callers.alice.roles must be a list"),
        (key() + '[callers.alice]\nroles = ["Operator"]', "callers.alice.roles must be a list"),
        (key() + '[callers.alice]\nroles = ["*"]', "callers.alice.roles must be a list"),
        (key() + '[callers.alice]\nroles = ["a", "a"]', "callers.alice.roles has one name twice"),
        ('[callers.alice]\nuris = ["alice"]', "callers.alice.uris must be a list of URIs"),
        ('[callers.alice]\nuris = ["spiffe://a/b c"]', "callers.alice.uris must be a list of URIs"),
        ('[callers.alice]\nuris = ["urn:a:b", "urn:a:b"]', "callers.alice.uris has one name twice"),
        ('[callers.a]\nuris = ["urn:a:b"]\n[callers.b]\nuris = ["urn:a:b"]', "the uri urn:a:b is given twice"),
        ('[callers."*"]\nuris = ["urn:a:b"]', "'*' is no caller's name"),
        ('[callers.""]\nuris = ["urn:a:b"]', "'' is no caller's name"),
        ('[callers."a b"]\nuris = ["urn:a:b"]', "'a b' is no caller's name"),
        ('[callers."a\\n"]\nuris = ["urn:a:b"]', r"'a\n' is no caller's name"),
        (f'[callers."{"a" * 256}"]\nuris = ["urn:a:b"]', "is no caller's name"),
        ('[callers."\u00e4"]\nuris = ["urn:a:b"]', "is no caller's name"),
        (key("Alice-1"), "callers.alice: 'Alice-1' is no kid"),
        (key("-1"), "callers.alice: '-1' is no kid"),
        (key('"a-1\\n"'), r"callers.alice: 'a-1\n' is no kid"),
        (key("a" * 65), "is no kid"),
        ("[callers.alice.keys]\na-1 = 3", "callers.alice.keys.a-1 must be a table"),
        (f'[callers.alice.keys]\na-1 = "{SECRET}"', "callers.alice.keys.a-1 must be a table"),
        (f'[callers.alice]\nkeys = "{SECRET}"', "callers.alice.keys must be a table for each key"),
        ("[callers.alice.keys.a-1]", "callers.alice.keys.a-1.secret is missing"),
        ("[callers.alice.keys.a-1]\nsecret = 3", "callers.alice.keys.a-1.secret must be a text"),
        (key(more='note = ""'), "callers.alice.keys.a-1: unknown key 'note'; known are not_after, secret"),
        (key(more="not_after = 2027-01-01T00:00:00"), "callers.alice.keys.a-1.not_after must be a date and time with"),
        (key(more="not_after = 2027-01-01"), "callers.alice.keys.a-1.not_after must be a date and time with"),
        (key(more='not_after = "2027-01-01T00:00:00Z"'), "callers.alice.keys.a-1.not_after must be a date"),
        (key() + f'[callers.bob.keys.a-1]\nsecret = "{OTHER}"', "bob's key a-1: this kid is used twice"),
        (key() + f'[callers.bob.keys.b-1]\nsecret = "{SECRET}"', "bob's key b-1 has the same secret as a-1"),
        (key() + key("a-2"), "alice's key a-2 has the same secret as a-1"),
        (key() + f'[callers.alice]\nsecret = "{SECRET}', "is not TOML: "),
        pytest.param("callers = " + "[" * 20_000, "something in it is nested too deeply", id="nested"),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """Nothing is guessed and nothing ignored: one line names the file, the place and what would be right."""
    message = refusal(tmp_path, text)
    assert message.startswith(str(tmp_path / "callers.toml"))
    assert complaint in message


@pytest.mark.parametrize(
    "secret",
    [
        "", "secret", SECRET + "=", SECRET[:-1], SECRET[:-1] + "9", SECRET + "A", SECRET[:20] + " " + SECRET[20:],
        SECRET[:20] + r"\n" + SECRET[20:], base64.b64encode(b"\xff" * 32).decode().rstrip("="), "A" * 42, "A" * 44,
        base64.urlsafe_b64encode(b"31 bytes, which are one too few."[:31]).decode().rstrip("="), "\u00c4" * 43,
    ],
)  # fmt: skip
def test_a_secret_is_exactly_32_bytes(tmp_path: Path, secret: str) -> None:
    """A short or sloppily written secret is refused, and not shown in the complaint."""
    message = refusal(tmp_path, key(secret=secret))
    assert "callers.alice.keys.a-1.secret must be 32 bytes as base64url without padding" in message
    assert not secret or secret not in message.replace("secret", "")


def test_t_cf_02_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Keys that somebody else could have read, or put there, are no keys."""
    for mode in (0o604, 0o640, 0o620, 0o602):
        path = write(tmp_path / "callers.toml", GOOD, mode)
        if mode == 0o640 and os.geteuid() == 0:
            continue  # root's own file may be readable by our group
        with pytest.raises(PolicyError, match="can be read by others"):
            Callers.load(path)
    with pytest.raises(PolicyError, match="cannot read"):
        Callers.load(str(tmp_path / "missing.toml"))
    with pytest.raises(PolicyError, match="there is no enabled caller"):
        Callers.load(write(tmp_path / "empty.toml", ""))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file of another encoding is told so."""
    path = tmp_path / "callers.toml"
    path.touch(mode=0o600)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="is not UTF-8"):
        Callers.load(str(path))
