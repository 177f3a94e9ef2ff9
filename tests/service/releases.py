"""Versions of rexec as they are installed: wheels, each in a directory of its own, and a link to the one in use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_SOURCES = ("protos", "rexec_server", "rexec_client", "pyproject.toml", "README.md", "LICENSE")


class Releases:
    """`current` leads to the version in use, as a service's units name it. Its dependencies are those of the tests."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.current = directory / "current"

    @property
    def environment(self) -> dict[str, str]:
        """With it, a Python finds rexec there, and not in its own environment."""
        return {**os.environ, "PYTHONPATH": str(self.current)}

    def program(self, name: str) -> str:
        return str(self.current / "bin" / name)

    def build(self, version: str) -> None:
        """Builds a wheel of the sources as they are, under this version, and installs it beside the others."""
        tree, wheels = self._directory / f"tree-{version}", self._directory / f"wheels-{version}"
        tree.mkdir()
        for name in _SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        _say_version(tree, version)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(tree))
        _pip("install", "--no-deps", "--target", str(self.place(version)), *map(str, wheels.iterdir()))

    def copy(self, version: str, other: str) -> None:
        """Another version that is no wheel of its own, for a test to change."""
        # Compiled code is told from old by the second and the size, and both may be the same.
        shutil.copytree(self.place(version), self.place(other), ignore=shutil.ignore_patterns("__pycache__"))
        _say_version(self.place(other), other)

    def place(self, version: str) -> Path:
        return self._directory / version

    def use(self, version: str) -> None:
        """Makes it the installed one, at once."""
        link = self._directory / "next"
        link.symlink_to(self.place(version))
        link.rename(self.current)


def _say_version(directory: Path, version: str) -> None:
    (directory / "rexec_client" / "version.py").write_text(f'__version__ = "{version}"\n')


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
