"""One rule in force: recognises the requests that mean it, and makes the order that is run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rexec_server.core.command import Command
from rexec_server.core.errors import NotAllowed
from rexec_server.core.grant import Grant
from rexec_server.core.launch import Confinement
from rexec_server.policy import bounds, environment, lint
from rexec_server.policy.accounts import Account, resolve
from rexec_server.policy.caller import Caller
from rexec_server.policy.programs import Program, UnsafeProgram
from rexec_server.policy.rule_table import RuleTable
from rexec_server.policy.skeleton import Element, Mismatch, Skeleton
from rexec_server.policy.slots import Slot

_log = logging.getLogger(__name__)


class ValueRefused(NotAllowed):
    """A value that a slot does not take. The caller is told which; `detail`, why, is for the operator."""

    def __init__(self, slot: str, rule: str, detail: str) -> None:
        super().__init__(f"not permitted: {slot!r} of rule {rule!r} cannot have this value")
        self.detail = f"{slot}: {detail}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Immutable, as is all that it holds: a request that it granted goes on with it, whatever is loaded meanwhile."""

    table: RuleTable
    skeleton: Skeleton
    program: Program
    account: Account | None

    @classmethod
    def make(cls, table: RuleTable, owners: frozenset[int]) -> Rule:
        """`owners` are uids that may own programs, besides root. ValueError."""
        skeleton = Skeleton.parse(table.arguments) if table.arguments else _literal(lint.SHELL, "-c", table.shell or "")
        lint.check(table, skeleton)
        run_as = table.run_as
        account = resolve(run_as.user, run_as.group, run_as.groups) if run_as else None
        if account and account.user == 0 and table.limits.processes is not None:
            raise ValueError("limits.processes does not bind root; use cgroup.processes")
        program = Program(skeleton.program, owners, account.user if account else None)
        try:
            program.check()
        except UnsafeProgram as error:
            raise ValueError(f"its program is not safe to run: {error}") from error
        return cls(table, skeleton, program, account)

    @property
    def name(self) -> str:
        return self.table.name

    def permits(self, caller: Caller) -> bool:
        return caller.name in self.table.callers or not caller.roles.isdisjoint(self.table.roles)

    def match(self, command: Command, words: Sequence[str] | None) -> dict[str, str]:
        """What the request gives for each slot; `words` are its arguments, None when it has none. Mismatch."""
        if self.table.shell is None:
            if words is None:
                raise Mismatch("the line cannot be split into arguments")
            return self.skeleton.match(words)
        if command.shell != self.table.shell:
            raise Mismatch(f"the line is not {self.table.shell!r}")
        return {}

    def fill(self, given: dict[str, str]) -> tuple[str, ...]:
        """The arguments that are run. ValueRefused."""
        slots = self.table.slots
        return self.skeleton.build({name: self._value(name, slots[name], text) for name, text in given.items()})

    def grant(self, command: Command, arguments: tuple[str, ...]) -> Grant:
        """How it is run. NotAllowed, InvalidRequest."""
        table = self.table
        granted_environment = self._environment(command)
        if command.working_directory not in ("", table.working_directory):
            raise NotAllowed(f"not permitted: rule {self.name!r} runs in {table.working_directory} only")
        bounds.check(table, command)
        limits = bounds.limits(table, command)
        self._check_program()
        return Grant(
            rule=self.name,
            arguments=arguments,
            environment=granted_environment,
            working_directory=table.working_directory,
            limits=limits,
            timeout=table.timeout if command.timeout is None else command.timeout,
            output_bytes=command.output_bytes or table.output or 0,
            waiting_timeout=table.waiting_timeout,
            umask=table.umask,
            confinement=self.confinement,
            max_running=table.max_running,
        )

    @property
    def confinement(self) -> Confinement:
        table, account = self.table, self.account
        return Confinement(
            user=account.user if account else None,
            group=account.group if account else None,
            groups=account.groups if account else (),
            no_new_privileges=table.no_new_privileges,
            drop_capabilities=table.drop_capabilities,
            memory_bytes=table.cgroup.memory or 0,
            processes=table.cgroup.processes or 0,
            cpus=table.cgroup.cpus or 0.0,
        )

    @property
    def requirements(self) -> frozenset[str]:
        """What the host must be able to do."""
        needs = {
            "run_as": self.account,
            "cgroup.memory": self.table.cgroup.memory,
            "cgroup.pids": self.table.cgroup.processes,
            "cgroup.cpu": self.table.cgroup.cpus,
        }
        return frozenset(name for name, needed in needs.items() if needed is not None)

    def _value(self, name: str, slot: Slot, text: str) -> str:
        try:
            return slot.fill(text)
        except ValueError as error:
            raise ValueRefused(name, self.name, str(error)) from error

    def _environment(self, command: Command) -> dict[str, str]:
        slots, given = self.table.environment_slots, command.environment_variables
        for name in given:
            if name not in slots:
                raise NotAllowed(f"not permitted: rule {self.name!r} takes no environment variable {name!r}")
        for name, slot in slots.items():
            if slot.required and name not in given:
                raise NotAllowed(f"not permitted: rule {self.name!r} needs the environment variable {name!r}")
        filled = {name: self._value(name, slots[name], text) for name, text in given.items()}
        home = self.account.home if self.account else "/"
        return environment.build(home, self.table.environment, filled)

    def _check_program(self) -> None:
        try:
            self.program.check()
        except UnsafeProgram as error:
            _log.error("rule %r is not run: its program is not safe: %s", self.name, error)
            raise NotAllowed("not permitted: its program is not safe to run now") from error


def _literal(*arguments: str) -> Skeleton:
    """Braces in a shell line are the shell's."""
    return Skeleton(tuple(Element(argument) for argument in arguments))
