"""The certificates of the listeners, and of the gateway."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from cryptography import x509

from rexec_server.doctor.finding import Finding, fail, ok, warn
from rexec_server.doctor.subject import Subject
from rexec_server.policy.files import PolicyError, read_private, read_trusted
from rexec_server.rpc.tls import ServerTls

# What is renewed is renewed by then; a certificate with a short life by the last third of it.
_SOON = datetime.timedelta(days=14)


def check_certificates(subject: Subject) -> Iterator[Finding]:
    config = subject.config
    pairs = {
        (listener.tls_cert, listener.tls_key, listener.client_ca)
        for listener in config.listeners
        if listener.tls_cert and listener.tls_key
    }
    if config.gateway_tls_cert and config.gateway_tls_key and not config.no_gateway:
        pairs.add((config.gateway_tls_cert, config.gateway_tls_key, None))
    found = [finding for pair in sorted(pairs, key=str) for finding in _check_pair(subject, *pair)]
    yield from dict.fromkeys(found)  # listeners may share a certificate
    if not pairs:
        yield ok("certificates", "no listener has TLS; all are for this machine alone")


def _check_pair(subject: Subject, certificate: str, key: str, authority: str | None) -> Iterator[Finding]:
    name = f"certificate {certificate}"
    try:
        read_private(key)
        ServerTls(certificate, key, authority)
    except PolicyError as error:
        yield fail(name, str(error), f"let only the server's user read {key}: chown, chmod 0600")
        return
    except ValueError as error:
        yield fail(name, str(error), "name files that fit together: a chain and its key, in PEM")
        return
    yield _expiry(subject, name, certificate)
    if authority:
        yield _expiry(subject, f"client CA {authority}", authority)


def _expiry(subject: Subject, name: str, path: str) -> Finding:
    """The first certificate of a file that ends."""
    try:
        certificates = x509.load_pem_x509_certificates(read_trusted(path))
    except (ValueError, PolicyError) as error:
        return fail(name, str(error), "name a file of certificates in PEM")
    now = datetime.datetime.fromtimestamp(subject.host.now, datetime.UTC)
    first = min(certificates, key=lambda one: one.not_valid_after_utc)
    begin, end = first.not_valid_before_utc, first.not_valid_after_utc
    if end <= now:
        return fail(name, f"expired on {end:%Y-%m-%d %H:%M} UTC", "renew it; the server reads it again by itself")
    if begin > now:
        return fail(
            name, f"is good from {begin:%Y-%m-%d %H:%M} UTC on", "look at the clock, or make one that is good now"
        )
    if end - now < min(_SOON, (end - begin) / 3):
        return warn(name, f"expires on {end:%Y-%m-%d %H:%M} UTC", "renew it; the server reads it again by itself")
    return ok(name, f"good until {end:%Y-%m-%d %H:%M} UTC")
