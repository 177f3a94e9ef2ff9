"""Pages of the index, however many executions there are."""

from __future__ import annotations

import sqlite3

import pytest

from rexec_server.core.execution import State
from rexec_server.core.index import Query
from rexec_server.core.schema import SCHEMA


@pytest.mark.parametrize(
    "query",
    [
        Query(caller="alice", page_size=100),
        Query(caller="alice", page_size=100, before=5000),
        Query(caller="alice", page_size=1, exclusive_group="json"),
        Query(caller="alice", page_size=10, states=(State.RUNNING,), labels=(("a", "b"),)),
        Query(caller="alice", page_size=10, before=5000, labels=(("a", "b"), ("c", "d"))),
        Query(caller="alice", page_size=10, exclusive_group="json", labels=(("a", "b"),)),
        Query(caller=None, page_size=100),
        Query(caller=None, page_size=100, before=5000, labels=(("a", "b"), ("c", "d"))),
    ],
)
def test_a_page_is_read_in_order(query: Query) -> None:
    """SQLite finds the newest first: sorting a caller's hundred thousand would hold up every start meanwhile."""
    with sqlite3.connect(":memory:") as db:
        for step in SCHEMA:
            db.executescript(step)
        statement, values = query.sql()
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    db.close()
    assert not any("ORDER BY" in line for line in plan), plan
    assert not any(line.startswith("SCAN execution") and "INDEX" not in line for line in plan), plan
    assert not any("json" in line for line in plan), plan
