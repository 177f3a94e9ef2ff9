"""What a command may be, applied to its own process between fork and exec.

Each step does what was declared, or fails the start: a command that runs is confined as its rule says.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from rexec_server.core.launch import Confinement
from rexec_server.process import become_undumpable, prctl
from rexec_server.runner import capabilities

_PR_SET_NO_NEW_PRIVS = 38

Step = tuple[str, Callable[[], None]]


def steps(confinement: Confinement) -> Iterator[Step]:
    """What is to be done, in this order, each with its name as in `could not …`. OSError from each."""
    # Another user has no use for any; those of root are dropped when that was declared.
    drops = confinement.drop_capabilities or bool(confinement.user)
    if drops:
        yield "empty its capability bounding set", lambda: _bound(confinement)
    if confinement.user is not None:
        yield f"become user {confinement.user}", lambda: _become(confinement)
    if drops:
        yield "drop its capabilities", capabilities.give_up
    if confinement.no_new_privileges:
        yield "forbid new privileges", _forbid_new_privileges


def needs_cgroup(confinement: Confinement) -> bool:
    return bool(confinement.memory_bytes or confinement.processes or confinement.cpus)


def _bound(confinement: Confinement) -> None:
    try:
        capabilities.empty_bounding_set()
    except PermissionError as error:
        # Who is not root may not; and an exec can then raise it only by what no_new_privs forbids.
        if os.geteuid() == 0:
            raise
        if not confinement.no_new_privileges:
            text = "the runner is not root, so only no_new_privileges could keep setuid programs from raising them"
            raise OSError(error.errno, text) from error


def _become(confinement: Confinement) -> None:
    user, group, groups = confinement.user, confinement.group, confinement.groups
    if user is None or group is None:
        raise OSError(errno.EINVAL, "no group was given with the user")
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # The kernel has done so too, unless fs.suid_dumpable is set: what we copied from the runner is nothing to others
    # of that user.
    become_undumpable()
    if os.getresuid() != (user,) * 3 or os.getresgid() != (group,) * 3 or set(os.getgroups()) != set(groups):
        raise OSError(errno.EPERM, f"it is {os.getresuid()}, {os.getresgid()}, {os.getgroups()}")


def _forbid_new_privileges() -> None:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
