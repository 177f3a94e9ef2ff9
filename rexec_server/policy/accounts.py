"""Users and groups, by the names that people give them."""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple

Name = str | int


class Account(NamedTuple):
    """As whom a command is run."""

    user: int
    group: int
    groups: tuple[int, ...]  # supplementary ones, exactly these
    home: str


def find_user(name: Name) -> int:
    """A uid. ValueError."""
    entry = _entry(name)
    return int(name) if entry is None else entry.pw_uid


def find_group(name: Name) -> int:
    """A gid. ValueError."""
    try:
        return grp.getgrnam(str(name)).gr_gid
    except KeyError:
        return _number(name, "group")


def resolve(user: Name, group: Name | None = None, groups: tuple[Name, ...] = ()) -> Account:
    """Who that is here. ValueError, also for root unless spelt `root`, and for the server's own user and group."""
    entry = _entry(user)
    uid = int(user) if entry is None else entry.pw_uid
    if uid == 0 and user != "root":
        raise ValueError(f'run_as {user!r} is root; if that is meant, write run_as = "root"')
    if uid != 0 and uid == os.geteuid():
        raise ValueError(f"run_as {user!r} is the server's own user: its commands could read the server's keys")
    if group is None and entry is None:
        raise ValueError(f"uid {uid} has no entry among the users, so run_as needs its group too")
    gid = find_group(group) if group is not None else entry.pw_gid if entry else uid
    others = tuple(sorted({find_group(name) for name in groups}))
    _check_groups(user, {gid, *others})
    home = entry.pw_dir if entry and entry.pw_dir.startswith("/") else "/"
    return Account(uid, gid, others, home)


def _check_groups(user: Name, groups: set[int]) -> None:
    """ValueError for our own group: it may read keys that are root's. Group 0 is no such group, but root's."""
    ours = os.getegid()
    if ours != 0 and ours in groups:
        raise ValueError(f"run_as {user!r} has the server's own group {ours}: its commands could read the keys")


def _entry(user: Name) -> pwd.struct_passwd | None:
    """None: a number without a name. ValueError."""
    try:
        return pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except (KeyError, OverflowError):
        uid = _number(user, "user")
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _number(name: Name, what: str) -> int:
    text = str(name)
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32 - 1:
        raise ValueError(f"there is no {what} {name!r} on this machine")
    return int(text)
