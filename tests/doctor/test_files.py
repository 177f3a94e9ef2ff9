"""Checks of what is on disk: state directory, index, spool, callers, rules, audit, certificates."""

from __future__ import annotations

import datetime
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.authority import Authority
from rexec_server.config import Config
from rexec_server.core.index import Index
from rexec_server.core.journal import NoJournal
from rexec_server.core.schema import SCHEMA
from rexec_server.doctor import certificates, records, rules, state
from rexec_server.doctor.finding import Finding, Level
from rexec_server.doctor.subject import Check
from tests.doctor.elsewhere import WELL
from tests.doctor.examined import CALLERS, RULE, dev, findings, only, production, well

HOUR, DAY = 3600.0, 86400.0


def bad(check: Check, config: Config, **facts: Any) -> Finding:
    """The one thing that is wrong."""
    (finding,) = [one for one in findings(check, config, **facts) if one.level is not Level.OK]
    return finding


# --- the state directory ---


def test_a_state_directory_that_is_ours(tmp_path: Path) -> None:
    """There, ours and closed to others; or not there, where the server can make it."""
    assert well(state.check_directory, production(tmp_path))
    assert well(state.check_directory, dev(tmp_path / "below" / "that"))


def test_a_state_directory_that_nobody_can_make() -> None:
    """Its parent is not to be written."""
    finding = only(state.check_directory, dev(Path("/proc/self")))
    assert (finding.level, "cannot write in /proc/self" in finding.found) == (Level.FAIL, True)


def test_a_state_directory_that_is_a_file(tmp_path: Path) -> None:
    """As a slip in a flag makes it."""
    (tmp_path / "state").touch()
    assert "is not a directory" in bad(state.check_directory, dev(tmp_path)).found


def test_a_state_directory_behind_a_file(tmp_path: Path) -> None:
    """What the system says is passed on."""
    (tmp_path / "file").touch()
    assert bad(state.check_directory, dev(tmp_path / "file")).level is Level.FAIL


def test_another_users_state_directory(tmp_path: Path) -> None:
    """The server would refuse it."""
    finding = bad(state.check_directory, production(tmp_path), uid=os.geteuid() + 1)
    assert (finding.level, f"belongs to uid {os.geteuid()}" in finding.found) == (Level.FAIL, True)


@pytest.mark.parametrize(("mode", "level"), [(0o777, Level.FAIL), (0o720, Level.FAIL), (0o755, Level.WARN)])
def test_a_state_directory_open_to_others(tmp_path: Path, mode: int, level: Level) -> None:
    """Who can write there could be our runner; who can look in sees which executions there are."""
    config = production(tmp_path)
    Path(config.state_dir).chmod(mode)
    finding = bad(state.check_directory, config)
    assert (finding.level, f"{mode:04o}" in finding.found) == (level, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A server there could reserve nothing."""
    config = production(tmp_path)
    Path(config.state_dir).chmod(0o500)
    assert "we cannot write in" in bad(state.check_directory, config).found


# --- index and spool ---


def make_index(config: Config) -> str:
    path = f"{config.state_dir}/index.sqlite"
    Index(path, NoJournal()).close()
    return path


def make_execution(config: Config, name: str, *, age: float = DAY, lock: bool = True, **files: str) -> Path:
    """A directory in the spool, of an age in seconds."""
    directory = Path(config.state_dir, "spool", name)
    directory.mkdir(parents=True)
    for file, text in {**({"lock": ""} if lock else {}), **files}.items():
        (directory / file.replace("_", ".")).write_text(text)
    os.utime(directory, (WELL["now"] - age,) * 2)
    return directory


def test_whole_records(tmp_path: Path) -> None:
    """None yet, or an index as a server leaves it."""
    config = production(tmp_path)
    checks = (records.check_index, records.check_spool, records.check_leftovers)
    assert all(well(check, config) for check in checks)
    make_index(config)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in Path(config.state_dir).iterdir())
    assert all(well(check, config) for check in checks)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in Path(config.state_dir).iterdir()) == before


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_index(tmp_path: Path, damage: bytes) -> None:
    """What SQLite says of it is passed on."""
    config = production(tmp_path)
    Path(config.state_dir, "index.sqlite").write_bytes(damage)
    finding = bad(records.check_index, config)
    assert (finding.level, "is damaged" in finding.found) == (Level.FAIL, True)


def test_a_torn_index(tmp_path: Path) -> None:
    """A page in the middle that is not what it was."""
    config = production(tmp_path)
    path = make_index(config)
    with closing(sqlite3.connect(path)) as index:
        index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = index.execute("PRAGMA page_size").fetchone()[0]
    with open(path, "r+b") as file:
        file.seek(size)
        file.write(b"\xa5" * size)
    assert bad(records.check_index, config).level is Level.FAIL


def test_an_index_of_a_newer_version(tmp_path: Path) -> None:
    """A server refuses it; doctor says so before."""
    config = production(tmp_path)
    with closing(sqlite3.connect(make_index(config))) as index:
        index.execute(f"PRAGMA user_version={len(SCHEMA) + 1}")
    finding = bad(records.check_index, config)
    assert (finding.level, "of a newer rexec" in finding.found) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("text", "level"), [('{"version": 99}', Level.FAIL), ("{", Level.WARN), ("[]", Level.WARN), ("{}", Level.WARN)]
)
def test_a_spool_of_a_newer_version(tmp_path: Path, text: str, level: Level) -> None:
    """As with the index; and what cannot be read is said."""
    config = production(tmp_path)
    make_execution(config, "any")
    Path(config.state_dir, "spool", "about").write_text(text)
    assert bad(records.check_spool, config).level is level


def test_a_spool_that_says_its_version(tmp_path: Path) -> None:
    """The one that is known is well."""
    config = production(tmp_path)
    make_execution(config, "any")
    Path(config.state_dir, "spool", "about").write_text('{"version": 1, "boot_id": ""}')
    assert well(records.check_spool, config)


def test_a_shim_that_failed(tmp_path: Path) -> None:
    """Its traceback is where nobody looks."""
    config = production(tmp_path)
    make_execution(config, "unlucky", shim_error="Traceback")
    assert "1 shims failed" in bad(records.check_leftovers, config).found


@pytest.mark.parametrize(("lock", "says"), [(False, "are no executions"), (True, "that the index does not know")])
def test_directories_that_nobody_will_remove(tmp_path: Path, lock: bool, says: str) -> None:
    """Old ones are told; a young one may be an execution that just begins or ends."""
    config = production(tmp_path)
    make_index(config)
    make_execution(config, "young", age=HOUR / 2, lock=lock)
    assert well(records.check_leftovers, config)
    make_execution(config, "old", age=HOUR * 2, lock=lock)
    finding = bad(records.check_leftovers, config)
    assert "1 directories" in finding.found
    assert says in finding.found
    assert "such as old" in finding.found


def test_a_long_log_of_the_index_without_a_server(tmp_path: Path) -> None:
    """A server that was killed left it; one that runs takes care of it."""
    config = production(tmp_path)
    with open(f"{config.state_dir}/index.sqlite-wal", "wb") as file:
        file.truncate(100 << 20)
    assert "index.sqlite-wal has" in bad(records.check_leftovers, config).found
    assert well(records.check_leftovers, config, holders={"server.pid": 1})


# --- who may do what ---


def test_rules_that_are_well(tmp_path: Path) -> None:
    """And in --dev there are none."""
    for check in (rules.check_callers, rules.check_policy, rules.check_audit):
        assert well(check, production(tmp_path))
    assert well(rules.check_callers, dev(tmp_path))
    assert well(rules.check_policy, dev(tmp_path))
    assert findings(rules.check_audit, dev(tmp_path)) == []


def test_callers_that_cannot_be_loaded(tmp_path: Path) -> None:
    """A file with keys that others can read is refused, with its name."""
    file = tmp_path / "callers.toml"
    file.write_text("[callers.alice]\n")
    file.chmod(0o644)
    finding = bad(rules.check_callers, production(tmp_path, callers=str(file)))
    assert (finding.level, str(file) in finding.found) == (Level.FAIL, True)


def test_keys_that_have_expired(tmp_path: Path) -> None:
    """A caller of whom nothing is good any more cannot come in."""
    end = datetime.datetime.fromtimestamp(WELL["now"] - 1, datetime.UTC)
    key = {"alice-1": {**CALLERS["alice"]["keys"]["alice-1"], "not_after": end}}
    finding = bad(rules.check_callers, production(tmp_path, callers={"alice": {"keys": key}}))
    assert (finding.level, finding.found) == (Level.WARN, "all keys of alice have expired")


@pytest.mark.parametrize(
    "text", ["[[rule]]\nname = 3\n", "rule = []\n", RULE.replace("alice", "")], ids=["wrong", "empty", "nobody"]
)
def test_a_policy_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    """What the server would say is said, with the file's name."""
    finding = bad(rules.check_policy, production(tmp_path, text))
    assert (finding.level, "policy.toml" in finding.found) == (Level.FAIL, True)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    """Said as the server would say it."""
    config = production(tmp_path)
    Path(str(config.policy)).unlink()
    assert bad(rules.check_policy, config).level is Level.FAIL


def test_an_audit_that_cannot_be_written(tmp_path: Path) -> None:
    """Then nothing is run; so it is said before."""
    assert bad(rules.check_audit, production(tmp_path, audit=str(tmp_path / "no" / "audit.jsonl"))).level is Level.FAIL


def test_an_audit_without_its_journal(tmp_path: Path) -> None:
    """Where journald does not listen, nothing can be recorded there."""
    finding = only(rules.check_audit, production(tmp_path, audit="journald"))
    assert finding.level is (Level.OK if os.path.exists("/run/systemd/journal/socket") else Level.FAIL)


# --- certificates ---


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Makes certificates."""
    return Authority()


def with_tls(directory: Path, authority: Authority, **settings: Any) -> Config:
    pair = authority.for_server("localhost")
    files = {"server.pem": pair.certificate, "server.key": pair.key, "ca.pem": authority.certificate}
    for name, data in files.items():
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(data)
    paths = {
        "tls_cert": directory / "server.pem",
        "tls_key": directory / "server.key",
        "client_ca": directory / "ca.pem",
    }
    given = {name: str(path) for name, path in paths.items()}
    return production(
        directory, gateway_tls_cert=given["tls_cert"], gateway_tls_key=given["tls_key"], **given, **settings
    )


def until(config: Config, authority: Authority) -> float:
    """When the server's certificate ends; seconds since 1970."""
    (found,) = [one.found for one in findings(certificates.check_certificates, config) if "server.pem" in one.check][:1]
    text = found.removeprefix("good until ").removesuffix(" UTC")
    return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=datetime.UTC).timestamp()


def test_certificates_that_are_good(tmp_path: Path, authority: Authority) -> None:
    """Of listeners and gateway, each once, and the authority of the callers."""
    found = findings(certificates.check_certificates, with_tls(tmp_path, authority))
    assert {one.level for one in found} == {Level.OK}
    assert any("ca.pem" in one.check for one in found)
    assert well(certificates.check_certificates, dev(tmp_path))


@pytest.mark.parametrize(
    ("after_end", "level", "says"), [(60, Level.FAIL, "expired on"), (-600, Level.WARN, "expires on")]
)
def test_certificates_that_end(tmp_path: Path, authority: Authority, after_end: float, level: Level, says: str) -> None:
    """Those that have ended, and those that soon will."""
    config = with_tls(tmp_path, authority)
    now = until(config, authority) + after_end
    found = [one for one in findings(certificates.check_certificates, config, now=now) if "server.pem" in one.check]
    assert {one.level for one in found} == {level}
    assert all(says in one.found for one in found)


def test_certificates_of_the_future(tmp_path: Path, authority: Authority) -> None:
    """A clock that is wrong, or a certificate made too early."""
    found = findings(certificates.check_certificates, with_tls(tmp_path, authority), now=1.0e9)
    assert {one.level for one in found} == {Level.FAIL}


def test_a_key_that_others_can_read(tmp_path: Path, authority: Authority) -> None:
    """The server refuses it; its name and mode are said."""
    config = with_tls(tmp_path, authority)
    (tmp_path / "server.key").chmod(0o644)
    finding = findings(certificates.check_certificates, config)[0]
    assert (finding.level, "0644" in finding.found) == (Level.FAIL, True)


def test_a_key_of_another_certificate(tmp_path: Path, authority: Authority) -> None:
    """gRPC would take both, and fail each handshake."""
    config = with_tls(tmp_path, authority)
    (tmp_path / "server.key").write_bytes(authority.for_server("localhost").key)
    assert findings(certificates.check_certificates, config)[0].level is Level.FAIL


def test_rules_are_as_written(tmp_path: Path) -> None:
    """The rule that these tests use is a good one."""
    assert only(rules.check_policy, production(tmp_path, RULE)).found == "1 rules, 0 tests"
