"""What a server is told at its start: one typed object, checked once."""

from __future__ import annotations

import ipaddress
import os
import socket
import tomllib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from rexec_server.core.command import MAX_SECONDS
from rexec_server.policy import units
from rexec_server.policy.files import PolicyError, read_private, read_trusted
from rexec_server.policy.rate import Rate

DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_GATEWAY = "127.0.0.1:3000"
# What only a server that checks its callers has.
_PRODUCTION = (
    "callers", "policy", "audit", "listener", "tls_cert", "client_ca", "caller_calls", "caller_starts", "all_starts",
    "failed_auth", "ingress", "gateway_behind_proxy",
)  # fmt: skip


class ConfigError(Exception):
    """The configuration does not allow to start; the message says what is wrong and where."""


def _number(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """What may be a number, or a text that says one."""
    return lambda value: parse(value) if isinstance(value, str) else value


# What GetServerInfo's fields can hold.
MAX_UINT32 = 2**32 - 1


CallRate = Annotated[Rate, BeforeValidator(_number(Rate.parse))]
Seconds = Annotated[float, BeforeValidator(_number(units.duration)), Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, BeforeValidator(_number(units.duration_or_never)), AfterValidator(units.check_wait)]
Bytes = Annotated[int, BeforeValidator(_number(units.size)), Field(gt=0)]


def _check_address(address: str) -> str:
    if not address.startswith("unix:"):
        split_address(address, "host:port or unix:PATH")
    return address


def split_address(address: str, wanted: str = "host:port") -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"{address!r} is no address; write {wanted}")
    if int(port) > 65535:
        raise ValueError(f"{address!r}: a port is 0 to 65535")
    return host.strip("[]"), int(port)


def default_state_dir() -> str:
    return "/var/lib/rexec" if os.geteuid() == 0 else platformdirs.user_state_dir("rexec")


class Listener(BaseModel):
    """One address, and how it is secured. With client_ca it takes callers with certificates, else such with tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Annotated[str, AfterValidator(_check_address)]
    tls_cert: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None

    @model_validator(mode="after")
    def _check_tls(self) -> Listener:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if self.client_ca and not self.tls_cert:
            raise ValueError("client_ca needs tls_cert and tls_key")
        return self


class Config(BaseModel):
    """All settings, with the defaults. Durations are seconds, sizes bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    state_dir: str = Field(default_factory=default_state_dir)
    dev: bool = False
    callers: str | dict[str, Any] | None = None  # a file, or its [callers] table itself
    policy: str | None = None
    audit: str | None = None
    audience: str = Field(default_factory=socket.gethostname)
    listener: tuple[Listener, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    client_ca: str | None = None
    caller_running: int | None = Field(None, ge=1)
    caller_followers: int | None = Field(None, ge=1)
    caller_calls: CallRate | None = None
    caller_starts: CallRate | None = None
    all_starts: CallRate | None = None
    failed_auth: CallRate = Rate(20, 1)
    max_running: int = Field(64, ge=1, le=MAX_UINT32)
    max_followers: int = Field(16_384, ge=1)
    max_timeout: Seconds | None = None
    tail_lines: int = Field(3, ge=0, le=MAX_UINT32)
    waiting_timeout: SecondsOrNever = 3600.0
    output_bytes: Bytes = 64 * 1024 * 1024
    retention: Seconds = 24 * 3600.0
    keep_count: int = Field(10_000, ge=0)
    keep_bytes: Bytes = 10 * 1024**3
    working_directory: str = Field(default_factory=os.getcwd)
    stop_grace: Seconds = 5.0
    end_on_stop: bool = False
    start_runner: bool = True
    channelz: bool = False
    ingress: bool = True
    gateway: str = DEFAULT_GATEWAY
    no_gateway: bool = False
    gateway_name: tuple[str, ...] = ()
    gateway_tls_cert: str | None = None
    gateway_tls_key: str | None = None
    gateway_behind_proxy: bool = False
    gateway_max_streams: int = Field(256, ge=1, le=4096)
    gateway_caller_streams: int | None = Field(None, ge=1, le=4096)
    metrics: str | None = None
    log_format: Literal["auto", "text", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("state_dir", "working_directory")
    @classmethod
    def _make_absolute(cls, path: str) -> str:
        return os.path.abspath(path)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            _check_address(address)
        return addresses

    @field_validator("gateway", "metrics")
    @classmethod
    def _check_host_and_port(cls, address: str | None) -> str | None:
        if address is not None:
            split_address(address)
        return address

    @model_validator(mode="after")
    def _check_certificate(self) -> Config:
        if bool(self.gateway_tls_cert) != bool(self.gateway_tls_key):
            raise ValueError("gateway_tls_cert and gateway_tls_key go together")
        return self

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """All of them: those of `listener`, and those of `listen`, which share one certificate."""
        plain = () if self.listener and "listen" not in self.model_fields_set else self.listen
        tls = {"tls_cert": self.tls_cert, "tls_key": self.tls_key, "client_ca": self.client_ca}
        return (
            *self.listener,
            *(Listener(address=address, **({} if address.startswith("unix:") else tls)) for address in plain),
        )

    @model_validator(mode="after")
    def _check_mode(self) -> Config:
        Listener(address="unix:", tls_cert=self.tls_cert, tls_key=self.tls_key, client_ca=self.client_ca)
        if self.dev:
            self._check_dev()
        else:
            self._check_production()
        return self

    def _check_dev(self) -> None:
        for name in _PRODUCTION:
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"--dev lets everybody in, so it does not go with {name}")
        for address in (*self.listen, self.gateway, self.metrics):
            if address and not is_loopback(address):
                raise ValueError(f"--dev lets everybody in, so it listens on loopback only; {address} is not")

    def _check_production(self) -> None:
        if not self.callers:
            raise ValueError(
                "no callers are configured, so nobody could be let in: --callers names a file of them;"
                " to try rexec on this machine alone, use --dev"
            )
        if not self.policy:
            raise ValueError("no policy is configured, so nothing could be run; --policy names a file of rules")
        for listener in self.listeners:
            if not listener.tls_cert and not is_loopback(listener.address):
                raise ValueError(f"{listener.address} is not loopback, so it needs tls_cert and tls_key")
        tls = self.gateway_tls_cert or self.gateway_behind_proxy
        if not self.no_gateway and not tls and not is_loopback(self.gateway):
            raise ValueError(
                f"the gateway's address {self.gateway} is not loopback, so it needs gateway_tls_cert and"
                " gateway_tls_key, or gateway_behind_proxy where a proxy speaks TLS for it"
            )


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to it."""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, whose keys are those of Config, with - or _. ConfigError."""
    try:
        with open(path, "rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or nested too deeply
        raise ConfigError(f"{path}: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    _check_readers(path, settings)
    for name in settings:
        if name not in Config.model_fields:
            raise ConfigError(f"{path}: unknown key {name!r}; known are {', '.join(Config.model_fields)}")
    return settings


def _check_readers(path: str, settings: dict[str, Any]) -> None:
    """Whoever can write the file chooses the callers; with the callers in it, it holds their keys."""
    if settings.get("dev"):
        return
    check = read_private if isinstance(settings.get("callers"), dict) else read_trusted
    try:
        check(path)
    except PolicyError as error:
        raise ConfigError(str(error)) from error


def build(settings: dict[str, Any]) -> Config:
    """The checked configuration. ConfigError names each setting that is wrong, and what it was."""
    try:
        return Config(**settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem) for problem in error.errors())) from error


def _describe(problem: Any) -> str:
    first, *below = map(str, problem["loc"] or [""])
    where = ".".join((first, *below)) if below else first and "--" + first.replace("_", "-")
    what = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")
    given = problem.get("input")
    shown = f" (it is {given!r:.80})" if where and isinstance(given, str | int | float) else ""
    return f"{where}: {what}{shown}" if where else what
