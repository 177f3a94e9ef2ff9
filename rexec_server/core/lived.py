"""Time that really passed since an index was made, as far as is known: the wall clock can be set, and is not asked.

It is the sum of what the machine's boots have counted. Time during which the machine is off is not counted: so what is
kept for a time is kept at least as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable

# It is written down this often: a restart of the machine makes what passed since then count for nothing.
SAVE_EVERY_NS = 600 * 10**9


class LivedTime:
    """A clock in nanoseconds that no one can set, and that goes on where it was last saved.

    saved: what `to_text` returned before; empty for a new one. uptime: nanoseconds since this boot began.
    """

    def __init__(self, boot_id: str, saved: str, uptime: Callable[[], int]) -> None:
        self._boot_id = boot_id
        self._uptime = uptime
        self._latest = uptime()
        before, then, lived = json.loads(saved) if saved else ("", 0, 0)
        # A container's boot may begin anew under the same name.
        same = before == boot_id and then <= self._latest
        self._lived = lived + (self._latest - then if same else 0)
        self._saved = self._lived

    def now(self) -> int:
        latest = self._uptime()
        self._lived += max(0, latest - self._latest)
        self._latest = latest
        return self._lived

    def is_due(self) -> bool:
        """Return True when it is time to save it; the next time is a while later."""
        due = self.now() - self._saved >= SAVE_EVERY_NS
        if due:
            self._saved = self._lived
        return due

    def to_text(self) -> str:
        lived = self.now()
        return json.dumps([self._boot_id, self._latest, lived])


def uptime_ns() -> int:
    """Return the time since the boot, suspended or not (proc(5)); a program whose clocks are faked has it too."""
    with open("/proc/uptime") as file:
        return int(float(file.read().split()[0]) * 1e9)
