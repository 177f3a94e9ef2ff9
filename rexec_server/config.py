"""What a server is told at its start: one typed object, checked once."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from typing import Annotated, Any

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_GATEWAY = "127.0.0.1:3000"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}


class ConfigError(Exception):
    """The configuration does not allow to start; the message says what is wrong and where."""


def _duration(value: Any) -> Any:
    """Seconds, or a text such as 500ms, 30s, 5m, 24h, 7d."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if not match:
            raise ValueError(f"{value!r} is no duration; write for example 30s, 5m or 24h")
        return float(match[1]) * _SECONDS[match[2]]
    return value


def _size(value: Any) -> Any:
    """Bytes, or a text such as 512K, 64M, 10G (powers of 1024)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if not match:
            raise ValueError(f"{value!r} is no size; write for example 64M or 10G")
        return int(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")
    return value


# As in core.command: longer durations are mistakes.
MAX_SECONDS = 100 * 365 * 86400.0
# What GetServerInfo's fields can hold.
MAX_UINT32 = 2**32 - 1

Seconds = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]


def default_state_dir() -> str:
    return "/var/lib/rexec" if os.geteuid() == 0 else platformdirs.user_state_dir("rexec")


class Config(BaseModel):
    """All settings, with the defaults. Durations are seconds, sizes bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    state_dir: str = Field(default_factory=default_state_dir)
    dev: bool = False
    max_running: int = Field(64, ge=1, le=MAX_UINT32)
    max_followers: int = Field(16_384, ge=1)
    max_timeout: Seconds | None = None
    tail_lines: int = Field(3, ge=0, le=MAX_UINT32)
    output_bytes: Bytes = 64 * 1024 * 1024
    retention: Seconds = 24 * 3600.0
    keep_count: int = Field(10_000, ge=0)
    keep_bytes: Bytes = 10 * 1024**3
    working_directory: str = Field(default_factory=os.getcwd)
    stop_grace: Seconds = 5.0
    end_on_stop: bool = False
    start_runner: bool = True
    channelz: bool = False
    gateway: str = DEFAULT_GATEWAY
    no_gateway: bool = False
    gateway_name: tuple[str, ...] = ()
    gateway_tls_cert: str | None = None
    gateway_tls_key: str | None = None
    gateway_max_streams: int = Field(256, ge=1, le=4096)

    @field_validator("state_dir", "working_directory")
    @classmethod
    def _make_absolute(cls, path: str) -> str:
        return os.path.abspath(path)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            if not address.startswith("unix:"):
                split_address(address)
        return addresses

    @field_validator("gateway")
    @classmethod
    def _check_gateway(cls, address: str) -> str:
        split_address(address)
        return address

    @model_validator(mode="after")
    def _check_certificate(self) -> Config:
        if bool(self.gateway_tls_cert) != bool(self.gateway_tls_key):
            raise ValueError("gateway_tls_cert and gateway_tls_key go together")
        return self

    @model_validator(mode="after")
    def _check_dev(self) -> Config:
        if not self.dev:
            raise ValueError(
                "no callers are configured, so nobody could be let in; to try rexec on this machine alone, use --dev"
            )
        for address in (*self.listen, self.gateway):
            if not is_loopback(address):
                raise ValueError(f"--dev lets everybody in, so it listens on loopback only; {address} is not")
        return self


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is no address; write host:port or unix:PATH")
    return host.strip("[]"), int(port)


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
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in settings:
        if name not in Config.model_fields:
            raise ConfigError(f"{path}: unknown key {name!r}; known are {', '.join(Config.model_fields)}")
    return settings


def build(settings: dict[str, Any]) -> Config:
    """The checked configuration. ConfigError names each setting that is wrong."""
    try:
        return Config(**settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem) for problem in error.errors())) from error


def _describe(problem: Any) -> str:
    where = "--" + str(problem["loc"][0]).replace("_", "-") + ": " if problem["loc"] else ""
    return where + str(problem["msg"]).removeprefix("Value error, ")
