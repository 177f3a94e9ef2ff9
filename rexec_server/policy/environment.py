"""A command's environment: built from nothing, never inherited."""

from __future__ import annotations

import re
from collections.abc import Mapping

BASE = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_FIXED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_SLOT_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
# What makes programs load, run or trust something else, or tell it to somebody else: no caller may set it.
_DANGEROUS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|IFS|ENV|PWD|OLDPWD|CDPATH|TMPDIR|PS[0-4]|PROMPT_COMMAND|GLOBIGNORE|SHELLOPTS"
    r"|EDITOR|VISUAL|PAGER|BROWSER|[A-Z0-9_]*_(?:EDITOR|PAGER|ASKPASS|PRELOAD)|MAKEFLAGS|TERMCAP|CLASSPATH|KUBECONFIG"
    r"|LESS|LESSOPEN|LESSCLOSE|LESSKEY[A-Z_]*|MANPATH|MANPAGER|MANOPT|PHPRC|TCLLIBPATH|GCONV_PATH|LOCPATH|NLSPATH"
    r"|GLIBC_TUNABLES|HOSTALIASES|RESOLV_HOST_CONF|RES_OPTIONS|(?:PYTHON|BASH|PERL|RUBY|TERMINFO)[A-Z0-9_]*"
    r"|(?:LD|DYLD|MALLOC|GIT|NODE|NPM|GEM|BUNDLE|PHP|LUA|TCL|R|JAVA|JDK|SSH|SSL|OPENSSL|CURL|DOCKER|CONTAINER|TAR|RSYNC"
    r"|GCC|XDG|ANSIBLE|SUDO|SYSTEMD|DBUS|REXEC)_[A-Z0-9_]*"
    r"|CORECLR_PROFILER_PATH|AWKPATH|AWKLIBPATH|ZDOTDIR|FPATH|VIMINIT|EXINIT|SSLKEYLOGFILE|GOFLAGS|MAVEN_OPTS|ERL_FLAGS"
    r"|KRB5_CONFIG|[A-Z0-9_]*_(?:MODULES|DRIVERS_PATH|PLUGIN_PATH|LOAD_PATH|HOOKS|WRAPPER|PROXY)|[A-Z0-9_]*RC",
    re.ASCII,
)


def check_fixed_name(name: str) -> None:
    """A name that the operator gives a value. ValueError."""
    if not _FIXED_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a variable: [A-Za-z_][A-Za-z0-9_]{{0,63}}")


def check_slot_name(name: str) -> None:
    """A name that callers give a value. ValueError."""
    if not _SLOT_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a variable that callers may set: [A-Z][A-Z0-9_]{{0,63}}")
    if _DANGEROUS.fullmatch(name):
        raise ValueError(f"{name} could make programs load or run something else, so no caller may set it")


def build(home: str, fixed: Mapping[str, str], filled: Mapping[str, str]) -> dict[str, str]:
    """All of it. `filled` is what callers gave; load has checked that it replaces nothing."""
    return {**BASE, "HOME": home, **fixed, **filled}
