"""All rules in force: what is not allowed by one of them is not run."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rexec_server.core.command import Command
from rexec_server.core.errors import NotAllowed, RateLimited, RexecError
from rexec_server.core.grant import Grant
from rexec_server.policy import accounts, policy_file
from rexec_server.policy.caller import Caller
from rexec_server.policy.files import PolicyError
from rexec_server.policy.rate import Buckets, Rate
from rexec_server.policy.rule import Rule, ValueRefused
from rexec_server.policy.rule_table import TestTable
from rexec_server.policy.skeleton import Mismatch

MAX_ARGUMENTS_BYTES = 256 * 1024
# Splitting takes time that grows with the square, and everybody waits for it.
MAX_LINE = 32 * 1024
_NO_RULE = "not permitted: no rule allows it"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of a request, for the operator: how it would be run, or why it is not by this rule."""

    rule: str
    grant: Grant | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Allowlist:
    """Immutable. Rules that are a shell line are asked before those that are arguments; else in the file's order."""

    rules: tuple[Rule, ...]

    @classmethod
    def load(cls, path: str) -> Allowlist:
        """Reads, checks, and asks it what its own tests ask. PolicyError, one line, on the first of what is wrong."""
        table = policy_file.read(path)
        try:
            owners = frozenset(accounts.find_user(name) for name in table.trusted_owners)
        except ValueError as error:
            raise PolicyError(f"{path}: trusted_owners: {error}") from error
        rules = []
        for rule in table.rule:
            try:
                rules.append(Rule.make(rule, owners))
            except ValueError as error:
                raise PolicyError(f"{path}: rule {rule.name!r}: {error}") from error
        allowlist = cls(tuple(sorted(rules, key=lambda rule: rule.table.shell is None)))
        for rule in table.rule:
            for number, test in enumerate(rule.test, 1):
                allowlist._check_test(f"{path}: rule {rule.name!r}: test {number}", rule.name, test)
        return allowlist

    @property
    def requirements(self) -> frozenset[str]:
        """What the host must be able to do: of run_as, cgroup.memory, cgroup.pids, cgroup.cpu."""
        return frozenset().union(*(rule.requirements for rule in self.rules))

    @property
    def as_runner(self) -> tuple[str, ...]:
        """The names of the rules without run_as: their commands run as the runner's own user."""
        return tuple(rule.name for rule in self.rules if rule.account is None)

    @property
    def tests(self) -> int:
        """How many tests the file has."""
        return sum(len(rule.table.test) for rule in self.rules)

    def decide(self, caller: Caller, command: Command) -> Grant:
        """How the command is run. NotAllowed, InvalidRequest (beyond the bounds of a rule that the caller has).

        What a caller may not use is not even looked at, so neither answer nor time tells whether it exists.
        """
        words, refused = _words(command), None
        for rule in self.rules:
            if not rule.permits(caller):
                continue
            try:
                arguments = rule.fill(rule.match(command, words))
            except Mismatch:
                continue
            except ValueRefused as error:
                refused = refused or error
                continue
            return rule.grant(command, arguments)
        raise refused or NotAllowed(_NO_RULE)

    def explain(self, caller: Caller, command: Command) -> list[Verdict]:
        """What each rule says, in the order in which they are asked. The first that grants is the one that counts."""
        words = _words(command)
        return [_explain(rule, caller, command, words) for rule in self.rules]

    def _check_test(self, where: str, name: str, test: TestTable) -> None:
        caller = Caller(test.caller or "", frozenset(test.roles))
        command = Command(
            arguments=test.arguments or (), shell=test.shell or "", environment_variables=dict(test.environment)
        )
        try:
            rule = self.decide(caller, command).rule
        except RexecError as error:
            if test.expect == "allow":
                raise PolicyError(f"{where} expects allow, but: {getattr(error, 'detail', error)}") from error
            return
        if test.expect == "deny":
            raise PolicyError(f"{where} expects deny, but rule {rule!r} allows it")
        if rule != name:
            raise PolicyError(f"{where} expects allow, but rule {rule!r} comes first and allows it")


class AllowlistAdmission:
    """The allowlist in force, and how often it may be used. Threads may admit, and another one replace meanwhile."""

    looks_at_files = True

    def __init__(self, allowlist: Allowlist, starts: Rate | None, all_starts: Rate | None) -> None:
        """starts: of each caller; all_starts: of all together; None: as many as they like."""
        self._callers, self._all = Buckets(starts), Buckets(all_starts)
        self._in_force = (allowlist, _buckets(allowlist, {}))
        self._counting = threading.Lock()

    def replace(self, allowlist: Allowlist) -> None:
        """Other rules from now on. What was used up of an unchanged rate stays used up. One call at a time."""
        # One assignment: who admits in another thread sees the old ones or the new ones, and never some of both.
        self._in_force = (allowlist, _buckets(allowlist, self._in_force[1]))

    def admit(self, caller: Caller, command: Command) -> Grant:
        """As Admission says."""
        allowlist, by_rule = self._in_force
        grant = allowlist.decide(caller, command)
        shares = (
            (by_rule[grant.rule], caller.name, f"rule {grant.rule}"),
            (self._callers, caller.name, f"caller {caller.name}"),
            (self._all, "", "all callers"),
        )
        with self._counting:
            # What one of them refuses is not to use up another one.
            for buckets, key, subject in shares:
                if wait := buckets.wait(key):
                    raise RateLimited(subject, f"{subject}: started too often lately", wait)
            for buckets, key, _ in shares:
                buckets.take(key)
        return grant


def _buckets(allowlist: Allowlist, before: Mapping[str, Buckets]) -> dict[str, Buckets]:
    """Those of each rule, which are those from before where the rate is the same."""
    made = {}
    for rule in allowlist.rules:
        kept = before.get(rule.name)
        made[rule.name] = kept if kept and kept.rate == rule.table.rate else Buckets(rule.table.rate)
    return made


def _words(command: Command) -> Sequence[str] | None:
    """The arguments that a request gives, be it as a line, split as a shell would; None: no rule could match them."""
    words: Sequence[str] = command.arguments
    if command.shell:
        # A line break ends a command in a shell, and is a blank to shlex.
        if len(command.shell) > MAX_LINE or not command.shell.isprintable():
            return None
        try:
            words = shlex.split(command.shell)
        except ValueError:
            return None
    size = sum(len(word.encode(errors="surrogatepass")) for word in words)
    return words if words and size <= MAX_ARGUMENTS_BYTES else None


def _explain(rule: Rule, caller: Caller, command: Command, words: Sequence[str] | None) -> Verdict:
    if not rule.permits(caller):
        who = ", ".join((*rule.table.callers, *(f"role {role}" for role in rule.table.roles)))
        return Verdict(rule.name, None, f"is for {who}")
    try:
        return Verdict(rule.name, rule.grant(command, rule.fill(rule.match(command, words))))
    except ValueRefused as error:
        return Verdict(rule.name, None, error.detail)
    except (Mismatch, RexecError) as error:
        return Verdict(rule.name, None, str(error))
