"""`rexec-server keys new`: a key for a caller, and the same for the server, that fit together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from joserfc import jwe
from joserfc.jwk import OctKey

from rexec_server.commands.keys import command
from rexec_server.policy.callers import Callers
from rexec_server.policy.tokens import TokenVerifier

DAY = 86400


def new(*flags: str) -> Result:
    return CliRunner().invoke(command, ["new", *flags])


def load(directory: Path, *tables: str) -> Callers:
    """callers.toml of what was printed."""
    path = directory / "callers.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(tables))
    return Callers.load(str(path))


@pytest.mark.parametrize("caller", ["alice", "spiffe://example.org/alice", 'we"ird\\name', "~", "a.b", "A" * 255])
def test_both_halves_fit_together(tmp_path: Path, caller: str) -> None:
    """A token that is made with the file is taken where the printed table is in callers.toml."""
    path = tmp_path / "key.jwk"
    made = new("--caller", caller, "--audience", "host-a", "--out", str(path))
    assert made.exit_code == 0, made.output
    callers = load(tmp_path, made.stdout)
    key = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (key["kty"], key["alg"], key["enc"], key["sub"], key["aud"]) == ("oct", "dir", "A256GCM", caller, "host-a")
    now = int(time.time())
    claims = {"sub": key["sub"], "aud": key["aud"], "iat": now, "exp": now + 60, "jti": "1"}
    header = {"alg": key["alg"], "enc": key["enc"], "kid": key["kid"]}
    token = jwe.encrypt_compact(header, json.dumps(claims), OctKey.import_key(key), algorithms=["dir", "A256GCM"])
    assert TokenVerifier("host-a").verify(token, callers).caller.name == caller


def test_a_key_for_some_days_has_an_end(tmp_path: Path) -> None:
    """`--days` is what the server holds the key to; without it there is no end, and without `--audience` no aud."""
    before = time.time()
    for kid, flags in (("a-1", ["--days", "30"]), ("a-2", [])):
        path = tmp_path / f"{kid}.jwk"
        made = new("--caller", "alice", "--kid", kid, "--out", str(path), *flags)
        found = load(tmp_path, made.stdout).by_kid(kid)
        assert found
        end = found[1].not_after
        assert (end is None) if not flags else (end and 0 <= end - before - 30 * DAY + 1 <= 60)
        assert "aud" not in json.loads(path.read_text())


def test_a_second_key_goes_beside_the_first(tmp_path: Path) -> None:
    """For a rotation the new table is added to the file; the two have ids of their own without asking."""
    printed = [new("--caller", "alice", "--out", str(tmp_path / f"{n}.jwk")).stdout for n in range(2)]
    alice = load(tmp_path, '[callers.alice]\nroles = ["operator"]', *printed).get("alice")
    assert alice
    assert len({key.kid for key in alice.keys}) == 2
    assert all(key.kid.startswith("alice-2") for key in alice.keys)


def test_the_real_program(tmp_path: Path) -> None:
    """It has the command, and only the table is on standard output."""
    made = subprocess.run(
        [sys.executable, "-m", "rexec_server", "keys", "new", "--caller", "alice", "--out", str(tmp_path / "key.jwk")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert load(tmp_path, made.stdout).get("alice")


def test_a_key_file_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a caller whose key is in use stays as it is, and nothing is printed that fits to no file."""
    monkeypatch.chdir(tmp_path)
    assert new("--caller", "alice").exit_code == 0
    first = (tmp_path / "alice.jwk").read_bytes()
    again = new("--caller", "alice")
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr == "Error: alice.jwk exists; --out names another file for the key\n"
    assert (tmp_path / "alice.jwk").read_bytes() == first


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--caller", "*"], "1 to 255 visible ASCII characters, and not '*'"),
        (["--caller", "a b"], "1 to 255 visible ASCII characters"),
        (["--caller", ""], "1 to 255 visible ASCII characters"),
        (["--caller", "alice", "--kid", "Alice"], "at most 64 of a-z 0-9 . _ -"),
        (["--caller", "alice", "--kid", "a" * 65], "at most 64 of a-z 0-9 . _ -"),
        (["--caller", "alice", "--days", "0"], "0 is not in the range"),
        (["--caller", "alice", "--days", "x"], "'x' is not a valid integer"),
        (["--caller", "alice", "--out", "no/such/folder"], "cannot write no/such/folder: No such file or directory"),
        ([], "Missing option '--caller'"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], complaint: str
) -> None:
    """A mistake is told in a line, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    made = new(*flags)
    assert made.exit_code != 0
    assert complaint in made.stderr
    assert made.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_names_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's name with slashes and dots makes a file here, and nowhere else."""
    monkeypatch.chdir(tmp_path)
    for caller in ("../../alice", "/etc/alice", "..", "spiffe://example.org/alice"):
        assert new("--caller", caller).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "alice.jwk", "etc-alice.jwk", "caller.jwk", "spiffe-example.org-alice.jwk",
    }  # fmt: skip
