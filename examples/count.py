#!/usr/bin/env python3
"""Prints 28 to 48, a line every 2 seconds, each as soon as it is written: something to poll and to follow."""

import argparse
import time

parser = argparse.ArgumentParser(description="Print 28 to 48, one line at a time.")
parser.add_argument(
    "--every", type=float, default=2.0, metavar="SECONDS", help="time between lines (default: %(default)s)"
)
every = parser.parse_args().every

for number in range(28, 49):
    print(number, flush=True)
    if number < 48:
        time.sleep(every)
