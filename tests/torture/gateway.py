"""The gateway after the torture: it answers, and tells the same as the server."""

from __future__ import annotations

import json
import urllib.request
from functools import partial
from typing import Any

from rexec.v1 import execution_pb2 as wire

from tests.torture.observation import Observation
from tests.torture.plant import CALLER, Plant
from tests.waiting import eventually

SAMPLE = 20


def check_gateway(plant: Plant, seen: list[Observation]) -> list[str]:
    """Asks for some of the executions."""
    faults = []
    for one in seen[:: max(1, len(seen) // SAMPLE)]:
        told = eventually(partial(_ask, plant, one.task.exec_id), within=60)
        if one.last is not None and told["state"] != wire.State.Name(one.last.state):
            faults.append(f"{one.task.exec_id}: the gateway says {told['execution']['state']}")
    return faults


def _ask(plant: Plant, exec_id: str) -> Any:
    """The answer; None while there is nobody to give it."""
    request = urllib.request.Request(f"{plant.gateway_url}/v1/executions/{exec_id}")
    request.add_header("Authorization", f"Bearer {CALLER}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except ConnectionError:
        return None
