"""What a client shows a coordinator: certificates, a token, or nothing on loopback (docs/security.md)."""
from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from sluice import contexts, errors

_COORDINATOR = "coordinator.sluice.internal"  # the DNS name in every coordinator's certificate
_MAX_TOKEN_BYTES = 4096


def _read(what: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise errors.CredentialsError(f"{what}: {path} cannot be read: {reason}") from None


def _is_loopback(server: str) -> bool:
    host = server.rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Credentials:
    """Paths of PEM files and of the file with a token; None: there is none."""

    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None

    @classmethod
    def find(cls, server: str | None, context: str | None,
             **given: str | os.PathLike[str] | None) -> tuple[str, Credentials]:
        """(HOST:PORT or "", what to show there), as sluicectl finds them: what is given, then SLUICE_SERVER, SLUICE_TLS_CA,
        SLUICE_TLS_CERT, SLUICE_TLS_KEY and SLUICE_TOKEN_FILE, then the context.

        ContextError: there is no such context, or their file has mistakes.
        """
        place = contexts.place_of(server, context, {
            name: os.fspath(value) if value is not None else os.environ.get(f"SLUICE_{name.upper()}")
            for name, value in given.items()})
        return place.server, cls(place.tls_ca or None, place.tls_cert or None, place.tls_key or None,
                                 place.token_file or None)

    def channel(self, server: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        """CredentialsError: the files cannot work, or the token would travel in the clear."""
        if (self.tls_cert is None) != (self.tls_key is None) or (self.tls_cert and not self.tls_ca):
            raise errors.CredentialsError("want tls_cert and tls_key together, and tls_ca with them")
        if self.token_file is not None:
            self.token()
            if self.tls_ca is None and not _is_loopback(server):
                raise errors.CredentialsError(f"a token goes to {server} over TLS alone, so that nobody else reads it; "
                                              "name the coordinator's CA with tls_ca")
        if self.tls_ca is None:
            return grpc.insecure_channel(server, options=options)
        certificate = None if self.tls_cert is None else _read("tls_cert", self.tls_cert)
        key = None if self.tls_key is None else _read("tls_key", self.tls_key)
        wire = grpc.ssl_channel_credentials(_read("tls_ca", self.tls_ca), key, certificate)
        # The role is checked, and not the host's name: that is what the name in the certificate is for.
        return grpc.secure_channel(server, wire, options=[*options, ("grpc.ssl_target_name_override", _COORDINATOR)])

    def token(self) -> str:
        assert self.token_file is not None
        raw = _read("token_file", self.token_file)
        text = raw[:_MAX_TOKEN_BYTES].decode("ascii", "replace").strip()
        if not text or not text.isascii() or not text.isprintable() or " " in text or len(raw) > _MAX_TOKEN_BYTES:
            raise errors.CredentialsError(f"token_file: want {self.token_file} to hold one token of 'sluicectl token "
                                          "create' and nothing else")
        return text

    def metadata(self) -> list[tuple[str, str]]:
        """Of a call: the token in its file as it is now."""
        return [] if self.token_file is None else [("authorization", f"Bearer {self.token()}")]

    def trouble(self, server: str, text: str) -> errors.TlsError | None:
        """What is wrong with TLS, if that is why a call was not possible; `text` is gRPC's."""
        if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
            return errors.TlsError(f"the certificate of the coordinator at {server} has expired, or is not from a CA in "
                                   f"{self.tls_ca}; renew it, or name its CA with tls_ca or SLUICE_TLS_CA")
        if "not in peer certificate" in text or "Hostname Verification" in text:
            return errors.TlsError(f"what answers at {server} has no certificate for {_COORDINATOR}: another address is "
                                   "meant, or the coordinator has the wrong certificate")
        if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
            return errors.TlsError(f"what answers at {server} speaks no TLS; leave tls_ca (SLUICE_TLS_CA) out, or start "
                                   "it with --tls-cert")
        closed = any(word in text for word in ("ocket closed", "CERTIFICATE_REQUIRED", "alert", "reset by peer"))
        if self.tls_ca is not None and closed:
            shown = f"refuses the certificate in {self.tls_cert}" if self.tls_cert else "wants a certificate"
            return errors.TlsError(f"the coordinator at {server} {shown}: it must be valid and from a CA that the "
                                   "coordinator names in its --tls-ca (tls_cert and tls_key, SLUICE_TLS_CERT and "
                                   "SLUICE_TLS_KEY)")
        return None
