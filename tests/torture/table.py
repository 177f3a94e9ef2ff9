"""The one table that a run prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

OUTCOMES = ("exact", "not started", "input refused", "lost", "wrong", "no end")
_ALWAYS = ("exact", "lost", "wrong")


def render(rows: Iterable[tuple[str, str]], deeds: Counter[str], facts: Iterable[tuple[str, object]]) -> str:
    """`rows` is kind and outcome of each execution; as Markdown, so that it can be put into a page."""
    counts: dict[str, Counter[str]] = {}
    for kind, outcome in rows:
        counts.setdefault(kind, Counter())[outcome] += 1
    total = sum(counts.values(), Counter[str]())
    columns = [outcome for outcome in OUTCOMES if total[outcome] or outcome in _ALWAYS]
    lines: list[tuple[str, ...]] = [("kind", "executions", *columns), ("---", *["---:"] * (len(columns) + 1))]
    lines += [_row(kind, counts[kind], columns) for kind in sorted(counts)]
    lines += [_row("**all**", total, columns)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    done = ", ".join(f"{what} {count}" for what, count in sorted(deeds.items()))
    said = "\n".join(f"{name}: {value}" for name, value in facts)
    return f"{text}\n\ndone to it: {done or 'nothing'}\n{said}"


def _row(kind: str, count: Counter[str], columns: list[str]) -> tuple[str, ...]:
    return (kind, str(count.total()), *(str(count[column]) for column in columns))
