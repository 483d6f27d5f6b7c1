"""Access: who may send which request now, so that nobody can spend the money of an owner whose endpoint is public."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from flask import Request

from visor.errors import Forbidden, KeyRequired, QuotaReached, SettingsError
from visor.free_tier.quota import Meter
from visor.settings import Settings
from visor.storage import private_folder
from visor.web.endpoints import Access
from visor.web.rate_limit import RateLimiter

KEY_HEADER = "X-Visor-Key"
KEY_FILE = "owner_key"
"""Below `VISOR_HOME`: the key that a laptop makes for its owner."""
DOWNLOADS = 3
"""How often one client may download the model at once; then once an hour."""
BILLED_S = 0.1
"""The shortest time that Cloud Run bills for a request."""
_SEND_KEY = f"Send the owner's key in the header {KEY_HEADER}"


def local_key(home: Path) -> str:
    """The owner's key on this machine, made when it is first needed, in a file that only its user can read.

    Raises:
        SettingsError: The file cannot be written or read.
    """
    path = home / KEY_FILE
    try:
        private_folder(home)
        if path.exists() and not path.read_text().strip():
            path.unlink()  # what a power cut or half a copy leaves is no key: with it, nobody would be the owner
        if not path.exists():
            made = path.with_name(f".{KEY_FILE}.{secrets.token_hex(4)}")
            try:
                with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_urlsafe(32))
                with suppress(FileExistsError):  # If two processes write, one wins, and both read the same key.
                    path.hardlink_to(made)
            finally:
                made.unlink(missing_ok=True)
        path.chmod(0o600)
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"The owner's key {path} cannot be used: {getattr(exc, 'strerror', None) or 'it is not text'}",
            valid="A file of this user below VISOR_HOME, on a disk with free space",
            remedy="Correct its permissions or the space, delete it for a new key, or set VISOR_OWNER_KEY",
        ) from exc


def client_of(forwarded_for: str | None, remote_address: str | None, *, behind_cloud_run: bool) -> str:
    """The key of the client that sent a request.

    Cloud Run's front end appends the address that it saw to X-Forwarded-For, so only the last entry can be
    trusted; the client wrote the others. Elsewhere the header is ignored. An IPv6 client has a whole /64 network of
    addresses, so the key is that network.

    Args:
        forwarded_for: The header X-Forwarded-For.
        remote_address: The peer of the connection.
        behind_cloud_run: Whether Google's front end is the peer.
    """
    address = remote_address or "unknown"
    if behind_cloud_run and forwarded_for:
        address = forwarded_for.rpartition(",")[2].strip() or address
    try:
        parsed = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class AccessPolicy:
    """Admits a request, or refuses it with the time of the next try. On a laptop searches are not limited; the owner's
    actions need the key there, too."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        self.settings, self.meter = settings, meter
        self.is_local = settings.backend == "local"
        self._limiters = {
            "search": RateLimiter(per_minute=settings.searches_per_minute, burst=settings.searches_burst),
            "reading": RateLimiter(per_minute=settings.reads_per_minute, burst=settings.reads_burst),
        }
        self._downloads = RateLimiter(per_minute=1 / 60, burst=DOWNLOADS)
        # A device requests a model once and keeps it, so page loads do not count: these are devices at one address.
        self._models = RateLimiter(per_minute=1, burst=10 * DOWNLOADS)
        self._guesses = RateLimiter(per_minute=10, burst=40)

    def admit(self, access: Access, request: Request) -> bool:
        """Admit one request, before any of its body is read. Returns whether its sender is the owner.

        Raises:
            KeyRequired: The request needs the owner's key and does not carry it.
            QuotaReached: This client sends requests too often, or the free tier is used up.
        """
        if access == "free":
            return False
        owner = self._is_owner(request, must=access == "owner")
        if access == "owner":
            if not owner:
                raise self._no_key("Only the owner may do this")
            return True
        if access == "search" and self.settings.key_required and not owner:
            raise self._no_key("This endpoint answers only its owner")
        if self.is_local:
            return owner
        if not owner:
            self._limiters[access].take(self.client(request))
        self.meter.allow(access, owner=owner)
        return owner

    def admit_download(self, request: Request, owner: bool, sent_bytes: int, model_bytes: int) -> None:
        """Admit this many bytes of a model's files, before they are sent.

        Raises:
            QuotaReached: This client has downloaded the model too often, or searches need the rest of the free tier.
        """
        if self.is_local or not sent_bytes:
            return
        if not owner:
            self._downloads.take(self.client(request), sent_bytes / model_bytes)
        self.meter.allow("model", sent_bytes / 1e6, owner=owner)
        # Its bytes are counted with the answer, but the time to send them is not.
        self.meter.add("model", sent_bytes / 1e6, response_bytes=0)

    def admit_model(self, request: Request, owner: bool, model_bytes: int) -> None:
        """Admit a device's download of the model from the owner's bucket, when it requests the model's description: no
        meter sees the download itself.

        Raises:
            QuotaReached: This client has sent requests too often, or the bucket's share has no download left.
        """
        if self.is_local or self.settings.models_from != "bucket" or not model_bytes:
            return
        if not owner:
            self._models.take(self.client(request))
        self.meter.allow("bucket_model", model_bytes / 1e6, owner=owner)
        self.meter.add("bucket_model", model_bytes / 1e6)
        self.meter.add("runtime")

    def offers_model(self, model_bytes: int) -> bool:
        """Whether devices may download the model on their own."""
        if self.is_local or self.settings.models_from == "elsewhere":
            return True
        return self.settings.models_from == "bucket" and self.meter.headroom("bucket_model") * 1e6 >= model_bytes

    def check_address(self, request: Request) -> None:
        """On a laptop, refuse names that are not this machine's, and pages of others.

        Whoever controls a name can point it here, and a browser then takes our answers for that name's own.

        Raises:
            Forbidden: Names the host or page that was refused.
        """
        if not self.is_local:
            return
        if not self._is_own(request.host):
            raise Forbidden(
                f"The request is addressed to {request.host!r:.100}",
                valid=", ".join(("localhost, IP addresses", *self.settings.hosts)),
                remedy="Use one of these names, or add yours to VISOR_HOSTS",
            )
        origin = request.headers.get("Origin")
        others = self.settings.cors_origins
        own = (f"http://{request.host}", f"https://{request.host}")
        if origin is None or origin in (*own, *others) or "*" in others:
            return
        raise Forbidden(
            f"The request comes from a page of {origin!r:.100}",
            valid="This server's own page",
            remedy="Name the origin in VISOR_CORS_ORIGINS if it is yours",
        )

    def check_metric(self, owner: bool) -> None:
        """Where reads are paid for, only the owner may search by a metric: it reads the full vectors of all items.

        Raises:
            KeyRequired: The sender is not the owner.
        """
        if not (owner or self.is_local):
            raise self._no_key("A metric reads all vectors, and is for the owner")

    def client(self, request: Request) -> str:
        """The key of the client that sent a request."""
        forwarded = request.headers.get("X-Forwarded-For")
        return client_of(forwarded, request.remote_addr, behind_cloud_run=not self.is_local)

    def count(
        self,
        kind: Literal["search", "reading"],
        n: int = 1,
        *,
        seconds: float,
        response_bytes: int,
        used: Mapping[str, float],
    ) -> None:
        """Count one answered request of n searches, even a refused one: Cloud Run bills each for at least 0.1 s."""
        self.meter.add(kind, seconds=max(seconds, BILLED_S), response_bytes=response_bytes, used=used)
        if n > 1:
            # One request to Cloud Run, with the time that it took.
            self.meter.use({}, {kind: n - 1.0})

    def charge(
        self,
        access: Access,
        request: Request,
        owner: bool,
        used: Mapping[str, float],
        *,
        admitted: int = 1,
        pictures: int = 0,
    ) -> None:
        """Charge the client's rate for what the request read or embedded beyond the usual amount that was admitted."""
        if owner or self.is_local or (access != "search" and access != "reading"):
            return
        reads = used.get("firestore_reads", 0) + used.get("class_b", 0)
        if (extra := max(reads / self.meter.usual_reads(access), pictures) - admitted) > 0:
            self._limiters[access].take(self.client(request), extra, owed=True)

    def _is_owner(self, request: Request, *, must: bool) -> bool:
        """Whether the request carries the key. After too many wrong keys, a client's next ones are not checked.

        Raises:
            QuotaReached: The client sent too many wrong keys, and the request needs the key (`must`).
        """
        key, given = self.settings.owner_key, request.headers.get(KEY_HEADER)
        if not key or given is None:
            return False
        client = self.client(request)
        try:
            self._guesses.take(client)
        except QuotaReached:
            if must:
                raise
            return False
        if not hmac.compare_digest(key.encode(), given.encode()):
            return False
        self._guesses.take(client, -1)
        return True

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in ("localhost", *map(str.lower, self.settings.hosts)) or name.endswith(".localhost"):
                return True
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True

    def _no_key(self, valid: str) -> KeyRequired:
        remedy = _SEND_KEY if self.settings.owner_key else "Set VISOR_OWNER_KEY: without it nobody may"
        if self.is_local:
            remedy += f"; `visor serve` prints it, and it is in {KEY_FILE} below VISOR_HOME"
        return KeyRequired(f"The request has no valid {KEY_HEADER}", valid=valid, remedy=remedy)
