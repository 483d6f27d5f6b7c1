"""The gate: who may search now. A public endpoint on somebody's free tier must not be a way to spend their money."""

from __future__ import annotations

import hmac
from typing import Literal
from urllib.parse import urlsplit

from flask import Request

from visor.errors import KeyRequired
from visor.free_tier.quota import Meter
from visor.settings import Settings
from visor.web.rate_limit import RateLimiter, client_of

KEY_HEADER = "X-Visor-Key"
BILLED_S = 0.1
"""The least that a request costs."""


class Gate:
    """Lets a request through, or says when to come back. Nothing is limited in the embedded setting."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        self.settings, self.meter = settings, meter
        self.rate = RateLimiter(per_minute=settings.searches_per_minute, burst=settings.searches_burst)
        self.reads = RateLimiter(per_minute=settings.reads_per_minute, burst=settings.reads_burst)

    def admit(self, request: Request) -> None:
        """Let one search through.

        Raises:
            KeyRequired: The owner lets nobody else search, and the request does not carry the owner's key.
            QuotaReached: This client asks too often, or what is free is used up.
        """
        if self.settings.backend == "local":
            return
        owner = self._is_owner(request)
        if self.settings.key_required and not owner:
            raise KeyRequired(
                f"The request has no valid {KEY_HEADER}",
                valid="This endpoint answers its owner only",
                remedy=f"Send the owner's key in the header {KEY_HEADER}",
            )
        if not owner:
            self.rate.take(_client(request))
        self.meter.allow("search", owner=owner)

    def admit_reading(self, request: Request) -> None:
        """Let one request through that is no search: an item that is asked for by id is a read of the database, too.

        Raises:
            QuotaReached: This client asks too often, or what is free is used up.
        """
        if self.settings.backend == "local":
            return
        owner = self._is_owner(request)
        if not owner:
            self.reads.take(_client(request))
        self.meter.allow("reading", owner=owner)

    def count_object(self) -> None:
        """Note that an object is read for somebody.

        Raises:
            QuotaReached: What is free is used up.
        """
        self.meter.allow("fresh_shard")
        self.meter.add("fresh_shard", seconds=0)

    def admit_owner(self, request: Request) -> None:
        """Let the owner change what is indexed. In the embedded setting anybody on this machine is the owner, except
        for a page of another site that a browser shows here.

        Raises:
            KeyRequired: The request does not carry the owner's key, or there is none, so that nobody may.
        """
        if self._is_owner(request):
            return
        origin = request.headers.get("Origin")
        if self.settings.backend == "local" and (origin is None or urlsplit(origin).netloc == request.host):
            return
        remedy = f"Send the owner's key in the header {KEY_HEADER}"
        raise KeyRequired(
            f"The request has no valid {KEY_HEADER}",
            valid="Only the owner may change what is indexed",
            remedy=remedy if self.settings.owner_key else "Set VISOR_OWNER_KEY to allow it: now nobody may",
        )

    def count(self, kind: Literal["search", "reading"], *, seconds: float, response_bytes: int) -> None:
        """Note that one request was answered, refused ones included: Cloud Run bills each from 0.1 s on."""
        self.meter.add(kind, seconds=max(seconds, BILLED_S), response_bytes=response_bytes)

    def _is_owner(self, request: Request) -> bool:
        key = self.settings.owner_key
        return bool(key) and hmac.compare_digest(key.encode(), request.headers.get(KEY_HEADER, "").encode())


def _client(request: Request) -> str:
    return client_of(request.headers.get("X-Forwarded-For"), request.remote_addr, behind_cloud_run=True)
