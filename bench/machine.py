"""The machine, in words that say what matters and name nobody."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.lab import file_system

_PACKAGES = ("grpcio", "protobuf", "asyncssh", "paramiko", "supervisor", "flask", "cheroot")


def describe(directory: Path) -> Mapping[str, str]:
    """Of the machine, and the programs that are compared; `directory` is where they write."""
    found = {
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "file system": file_system(directory),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "Python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass  # then it takes no part
    if shutil.which("ssh"):
        told = subprocess.run(["ssh", "-V"], stderr=subprocess.PIPE, text=True, check=False).stderr
        found["OpenSSH"] = re.sub(r"^OpenSSH_([^ ,]+).*", r"\1", told.strip())
    return found


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1].strip() if match else platform.machine()
