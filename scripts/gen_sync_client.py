"""Generate `rexec_client/_sync` from `rexec_client/_async` by replacing words.

    python scripts/gen_sync_client.py [OUT]

OUT defaults to `rexec_client/_sync`; the test that finds stale code passes a directory of its own.
`backend.py` is written for both worlds by hand, and left alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "rexec_client" / "_async"
BY_HAND = {"backend.py"}

HEADER = "# Generated from rexec_client/_async/{name} by scripts/gen_sync_client.py: do not edit.\n"

WORDS = [
    (r"\bawait ", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bExecutionServiceAsyncStub\b", "ExecutionServiceStub"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\ba(iter|next)\(", r"\1("),
    (r"\baclose\b", "close"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\b_async\b", "_sync"),
]


def to_sync(source: str) -> str:
    for pattern, replacement in WORDS:
        source = re.sub(pattern, replacement, source)
    return source


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(SOURCE.glob("*.py")):
        if path.name not in BY_HAND:
            (out / path.name).write_text(HEADER.format(name=path.name) + to_sync(path.read_text()))
    made = [str(out / path.name) for path in SOURCE.glob("*.py") if path.name not in BY_HAND]
    # Shorter words leave other line ends, another order of imports, and loops that are now simpler without `async`.
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(ROOT / "pyproject.toml")]
    subprocess.run(
        [*ruff, "check", "-q", "--fix", "--unsafe-fixes", "--select", "I,C416,UP028", *config, *made], check=True
    )
    subprocess.run([*ruff, "format", "-q", *config, *made], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "rexec_client" / "_sync")
