"""What the tests of the checks do over and over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexec_server.config import Config, build
from rexec_server.doctor.finding import Finding, Level
from rexec_server.doctor.host import Host
from rexec_server.doctor.subject import Check, Subject
from tests.doctor.elsewhere import Elsewhere

SECRET = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
CALLERS = {"alice": {"keys": {"alice-1": {"secret": SECRET}}}}
RULE = '[[rule]]\nname = "true"\narguments = ["/bin/true"]\ncallers = ["alice"]\n'


def dev(directory: Path, **settings: Any) -> Config:
    return build({"dev": True, "state_dir": str(directory / "state"), **settings})


def production(directory: Path, rules: str = RULE, **settings: Any) -> Config:
    """A server's configuration with its files; the directory is there, and its state directory too."""
    (directory / "state").mkdir(mode=0o700, exist_ok=True)
    policy = directory / "policy.toml"
    policy.touch(mode=0o600)
    policy.write_text(rules)
    given = {"callers": CALLERS, "policy": str(policy), "state_dir": str(directory / "state"), **settings}
    return build(given)


def findings(check: Check, config: Config, host: Host | None = None, **facts: Any) -> list[Finding]:
    found = list(check(Subject(config, host or Elsewhere(**facts))))
    for finding in found:
        assert finding.found
        assert bool(finding.change) == (finding.level is not Level.OK), "what is not well says what to change"
    return found


def only(check: Check, config: Config, host: Host | None = None, **facts: Any) -> Finding:
    (finding,) = findings(check, config, host, **facts)
    return finding


def well(check: Check, config: Config, **facts: Any) -> bool:
    """Whether it finds nothing wrong, and something at all."""
    levels = {finding.level for finding in findings(check, config, **facts)}
    return levels == {Level.OK}
