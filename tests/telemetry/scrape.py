"""What Prometheus and an orchestrator see of a server."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.servers import Server
from tests.waiting import eventually

# A condition that holds costs none of it.
WITHIN = 60.0


class Answer(NamedTuple):
    status: int
    text: str


def get(url: str, method: str = "GET") -> Answer:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WITHIN) as response:
            return Answer(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode())


class Endpoint:
    """The address that `--metrics` has opened."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Where the server says that it is, after its last start."""
        return self._server.log.rpartition(" metrics are at ")[2].split()[0].removesuffix("/metrics")

    def get(self, path: str, method: str = "GET") -> Answer:
        return get(self.url + path, method)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample; None when there is no such series."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def reaches(self, value: float, name: str, **labels: str) -> None:
        """Waits until the sample has this value."""

        def holds() -> bool:
            found = self.value(name, **labels)
            assert found == value, f"{name}{labels} is {found}"
            return True

        eventually(holds, within=WITHIN)


def calls(method: str, code: str = "") -> dict[str, str]:
    """The labels of a call of our service."""
    labels = {"grpc_service": "rexec.v1.ExecutionService", "grpc_method": method}
    return labels | ({"grpc_code": code} if code else {})
