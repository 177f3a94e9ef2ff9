"""Python, the kernel, and the packages that rexec is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rexec_client.version import __version__
from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.host import Host
from rexec_server.doctor.subject import Subject

OLDEST_PYTHON = (3, 11)
# From here on anybody who holds a pidfd is told how a process ended, also when another has reaped it.
KERNEL_TELLS_STRANGERS = (6, 15)
_EXTRAS = ("server", "cli", "gateway", "tokens")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?[^;]*?(?:>=(?P<floor>[0-9.]+))?[^;>]*(?:;(?P<marker>.*))?$"
)


def check_python(subject: Subject) -> Iterator[Finding]:
    have = subject.host.python
    text = ".".join(map(str, have))
    if have < OLDEST_PYTHON:
        yield fail("python", f"Python {text}", "install rexec into a Python of 3.11 or newer")
    else:
        yield ok("python", f"Python {text}")


def check_packages(subject: Subject) -> Iterator[Finding]:
    host = subject.host
    said = host.installed("rexec")
    if said is None:
        yield warn(
            "packages", f"rexec {__version__} is not installed as a package", "install it with pip: rexec[server]"
        )
    elif said != __version__:
        yield warn(
            "packages",
            f"the code is of rexec {__version__}, and what is installed says {said}",
            "install it again; two versions may be mixed",
        )
    lacking = [lack for requirement in host.requirements() if (lack := _lack(host, requirement))]
    if lacking:
        yield fail("packages", "; ".join(lacking), "pip install --upgrade 'rexec[server]'")
    elif said == __version__:
        yield ok("packages", f"rexec {said} and all that it needs")


def _lack(host: Host, requirement: str) -> str | None:
    """What is wrong with a requirement of ours, in words; None when it is met, or is not the server's."""
    match = _REQUIREMENT.match(requirement)
    if match is None or not _is_ours(match["marker"]) or match["name"].lower() == "rexec":
        return None
    have, floor = host.installed(match["name"]), match["floor"]
    if have is None:
        return f"{match['name']} is missing"
    return f"{match['name']} is {have} and must be {floor}" if floor and _numbers(have) < _numbers(floor) else None


def _is_ours(marker: str | None) -> bool:
    """Whether a requirement is always there, or belongs to an extra that a server has."""
    extra = re.search(r"extra == ['\"](\w+)['\"]", marker or "")
    return extra is None or extra[1] in _EXTRAS


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def check_kernel(subject: Subject) -> Iterator[Finding]:
    release = subject.host.kernel
    missing = subject.host.missing_calls()
    if missing:
        yield fail(
            "kernel",
            f"Linux {release} does not let us use {', '.join(missing)}",
            "use Linux 5.10 or newer; in a container, let its seccomp profile allow these",
        )
    elif tuple(_numbers(release)[:2]) < KERNEL_TELLS_STRANGERS:
        yield warn(
            "kernel",
            f"Linux {release}: a command whose shim and runner are both killed ends as LOST",
            "Linux 6.15 or newer tells its status even then",
        )
    else:
        yield ok("kernel", f"Linux {release}")
