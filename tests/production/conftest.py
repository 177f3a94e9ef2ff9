"""Real production servers: callers, an allowlist, certificates and an audit, in a directory of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.production.site import Site, running


@pytest.fixture(scope="module")
def modules_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One production server for all tests of a module; ids are to be each test's own."""
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(modules_site: Site) -> Site:
    """A production server with the rules and callers of tests/production/site.py; for the module to share."""
    return modules_site


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites of a test's own, not started yet: to be changed, reloaded, killed; they end with the test."""
    sites: list[Site] = []

    def make(name: str = "site", **settings: object) -> Site:
        sites.append(Site(tmp_path / name, **settings))
        return sites[-1]

    yield make
    for one in sites:
        one.close()
