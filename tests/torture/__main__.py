"""`python -m tests.torture [--seed N] [--executions N] [--kills N]`: one run, its table, and what was wrong."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path

from tests.torture.trial import Settings, Trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description="Tortures rexec, and judges it.")
    parser.add_argument("--seed", type=int, help="of an earlier run, to do the same again; a new one by default")
    parser.add_argument("--executions", type=int, default=5000, help="how many; default %(default)s")
    parser.add_argument("--kills", type=int, default=500, help="processes that are killed, about; default %(default)s")
    parser.add_argument("--at-once", type=int, default=12, help="callers; default %(default)s")
    parser.add_argument("--keep", type=Path, default=Path(".run/torture"), help="where failures are kept; %(default)s")
    options = parser.parse_args()
    if options.executions < 1 or options.kills < 0 or options.at_once < 1:
        parser.error("--executions and --at-once: at least 1; --kills: at least 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("broken off"))  # all that was started is ended then
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    keep = options.keep / str(seed)
    trial = Trial(Settings(seed, options.executions, options.kills, options.at_once), keep)
    good = trial.run()
    print(trial.table)
    for fault in trial.faults:
        print(f"FAULT {fault}")
    if not good:
        print(f"Kept in {keep}. Again: --seed {seed} --executions {options.executions} --kills {options.kills}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
