"""Whether traces are asked for: by the environment variables that all programs with OpenTelemetry share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rexec_server.telemetry.traces import Traces

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def traces(environment: Mapping[str, str], version: str) -> Traces | None:
    """None when none are asked for, or when they cannot be had: then the log says why."""
    if not asked(environment):
        return None
    try:
        from rexec_server.telemetry.traces import Traces
    except ImportError:
        _log.warning("OTEL_* asks for traces, which need the extra rexec[otel]: there are none")
        return None
    return Traces(version)


def asked(environment: Mapping[str, str]) -> bool:
    """Whether these variables ask for traces that we can send."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        _log.warning("there are no traces: OTEL_TRACES_EXPORTER may be otlp or none")
        return False
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("there are no traces: OTEL_EXPORTER_OTLP_PROTOCOL may be http/protobuf only")
        return False
    return True
