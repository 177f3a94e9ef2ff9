"""A failure in words for the person who typed the command: one line, and what to type instead where that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexec_client.errors import NotFoundError, RexecError, UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    from rexec_client.cli.settings import Settings

_TLS_FAULTS = ("Socket closed", "SSL", "handshake", "WRONG_VERSION_NUMBER")
_DISTRUST = ("CERTIFICATE_VERIFY_FAILED", "peer certificate")


def explain(error: RexecError, settings: Settings, *, may_name_owner: bool) -> str:
    """One line. `may_name_owner`: the command has an option --owner, which was not given."""
    where = f" ({error.exec_id})" if error.exec_id else ""
    text = str(error)
    match error:
        case UnavailableError():
            return _unavailable(text, where, settings)
        case UnauthenticatedError():
            return text + where + _proof(text, settings)
        case NotFoundError() if may_name_owner:
            return f"no execution {error.exec_id!r} of yours; an operator names another's with --owner NAME"
    return text if error.exec_id and error.exec_id in text else text + where


def _proof(text: str, settings: Settings) -> str:
    """What the server would rather have seen."""
    if settings.key_file:
        return "; the server's log says why" if "not valid" in text else ""
    if settings.cert:
        return ""
    if settings.caller:
        return "; --caller is for --dev; this server wants --key-file or --cert"
    return "; give --key-file FILE (or --cert and --key)"


def _unavailable(text: str, where: str, settings: Settings) -> str:
    # A connection that was open, and closed, is a server that went away.
    if text != "Socket closed" and any(fault in text for fault in _TLS_FAULTS):
        return f"no connection to the server{where}: {_no_tls(text, settings)}"
    return f"no server, or it is restarting{where}: {text}"


def _no_tls(text: str, settings: Settings) -> str:
    """gRPC's own words for it name its source files; these name options."""
    if not (settings.tls or settings.ca or settings.cert):
        return "it closed the connection; a server with TLS needs --ca FILE"
    if any(sign in text for sign in _DISTRUST):
        return "its certificate is of another authority than --ca names, or for another address"
    if not settings.cert:
        return "TLS failed; this address may want --cert and --key, or does not speak TLS"
    return "TLS failed; it may not take this certificate, or does not speak TLS"
