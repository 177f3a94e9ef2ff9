"""Asks a server whether it serves: exit code 0 when it does, 1 when it does not. Anybody may ask that.

python health.py unix:/var/lib/rexec/rexec.sock
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 5


def serves(target: str) -> bool:
    """target: host:port or unix:PATH, without TLS: it is for the machine on which the server is."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            print(f"{target}: {error.code().name}: {error.details()}")
            return False
    print(f"{target}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")
    return answer.status == health_pb2.HealthCheckResponse.SERVING


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1]) else 1)
