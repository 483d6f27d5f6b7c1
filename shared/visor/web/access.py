"""Access: who may send which request now. Nobody may spend the money of an owner whose endpoint is public."""

from __future__ import annotations

import hmac
from typing import Literal
from urllib.parse import urlsplit

from flask import Request

from visor.errors import KeyRequired
from visor.free_tier.quota import Meter
from visor.settings import Settings
from visor.web.endpoints import Access
from visor.web.rate_limit import RateLimiter, client_of

KEY_HEADER = "X-Visor-Key"
BILLED_S = 0.1
"""The shortest time that Cloud Run bills for a request."""
_SEND_KEY = f"Send the owner's key in the header {KEY_HEADER}"


class AccessPolicy:
    """Admits a request, or says when to try again. On a laptop nothing is limited."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        self.settings, self.meter = settings, meter
        self._limiters = {
            "search": RateLimiter(per_minute=settings.searches_per_minute, burst=settings.searches_burst),
            "reading": RateLimiter(per_minute=settings.reads_per_minute, burst=settings.reads_burst),
        }

    def admit(self, access: Access, request: Request) -> None:
        """Admit one request, before anything of its body is read.

        Raises:
            KeyRequired: The request needs the owner's key and does not carry it.
            QuotaReached: This client asks too often, or the free tier is used up.
        """
        owner = self._is_owner(request)
        if access == "owner":
            if not owner:
                self._refuse_stranger(request)
            return
        if access == "free" or self.settings.backend == "local":
            return
        if access == "search" and self.settings.key_required and not owner:
            raise _no_key("This endpoint answers only its owner", _SEND_KEY)
        if not owner:
            self._limiters[access].take(_client(request))
        self.meter.allow(access, owner=owner)

    def _refuse_stranger(self, request: Request) -> None:
        """Raise `KeyRequired`, except on a laptop: everyone there is the owner, but not another site's page."""
        origin = request.headers.get("Origin")
        if self.settings.backend == "local" and (origin is None or urlsplit(origin).netloc == request.host):
            return
        remedy = _SEND_KEY if self.settings.owner_key else "Set VISOR_OWNER_KEY: without it nobody may"
        raise _no_key("Only the owner may change what is indexed", remedy)

    def count_object(self) -> None:
        """Count an object that is read for a request.

        Raises:
            QuotaReached: The free tier is used up.
        """
        self.meter.allow("fresh_shard")
        self.meter.add("fresh_shard", seconds=0)

    def count(self, kind: Literal["search", "reading"], *, seconds: float, response_bytes: int) -> None:
        """Count one answered request, also a refused one: Cloud Run bills each for at least 0.1 s."""
        self.meter.add(kind, seconds=max(seconds, BILLED_S), response_bytes=response_bytes)

    def _is_owner(self, request: Request) -> bool:
        key = self.settings.owner_key
        return bool(key) and hmac.compare_digest(key.encode(), request.headers.get(KEY_HEADER, "").encode())


def _client(request: Request) -> str:
    return client_of(request.headers.get("X-Forwarded-For"), request.remote_addr, behind_cloud_run=True)


def _no_key(valid: str, remedy: str) -> KeyRequired:
    return KeyRequired(f"The request has no valid {KEY_HEADER}", valid=valid, remedy=remedy)
