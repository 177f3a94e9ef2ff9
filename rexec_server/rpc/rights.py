"""What each call may do. A call that is not in this table is nobody's: adding an RPC needs a line here."""

from __future__ import annotations

import enum

from rexec_server.core.errors import NotAllowed
from rexec_server.policy.caller import Caller


class Right(enum.Enum):
    """What a call needs of its caller's credential."""

    OPEN = "open to everybody, without any credential"
    READ = "a credential, be it for looking only"
    ACT = "a credential that is good for starting and ending"


_SERVICE = "/rexec.v1.ExecutionService/"

RIGHTS = {
    f"{_SERVICE}Exec": Right.ACT,
    f"{_SERVICE}Get": Right.READ,
    f"{_SERVICE}Poll": Right.READ,
    f"{_SERVICE}Follow": Right.READ,
    f"{_SERVICE}Acknowledge": Right.ACT,
    f"{_SERVICE}List": Right.READ,
    f"{_SERVICE}Signal": Right.ACT,
    f"{_SERVICE}Cancel": Right.ACT,
    f"{_SERVICE}WriteStdin": Right.ACT,
    f"{_SERVICE}Delete": Right.ACT,
    f"{_SERVICE}GetServerInfo": Right.READ,
    # Says that a process serves, and nothing about anybody: load balancers ask without credentials. (Health/List is
    # not here: grpcio-health-checking has it only to fail in it, with a traceback in the log.)
    "/grpc.health.v1.Health/Check": Right.OPEN,
    "/grpc.health.v1.Health/Watch": Right.OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Right.READ,
    "/grpc.channelz.v1.Channelz/GetTopChannels": Right.READ,
    "/grpc.channelz.v1.Channelz/GetServers": Right.READ,
    "/grpc.channelz.v1.Channelz/GetServer": Right.READ,
    "/grpc.channelz.v1.Channelz/GetServerSockets": Right.READ,
    "/grpc.channelz.v1.Channelz/GetChannel": Right.READ,
    "/grpc.channelz.v1.Channelz/GetSubchannel": Right.READ,
    "/grpc.channelz.v1.Channelz/GetSocket": Right.READ,
}


def check(caller: Caller, method: str) -> None:
    """NotAllowed when the caller's credential is not good for this call."""
    if caller.read_only and RIGHTS.get(method) is not Right.READ:
        raise NotAllowed("this token has the scope 'read': it starts and ends nothing")
