"""One deadline for a whole transfer: every wait of its connection ends with it, so that trickling bytes cannot extend
it."""

from __future__ import annotations

import ssl
import time
from typing import Any

import httpcore

CONNECT_TIMEOUT_S = 5.0
"""Longest wait for one address to accept a connection, and for each step of its TLS handshake."""
IDLE_MAX_S = 10.0
"""Longest wait for the next byte."""


class Deadline(float):
    """The moment by which a transfer must end. As a number: its whole time in seconds.

    It is passed to httpcore as the request's time-outs, and httpcore passes it to the network backend unchanged. A
    pooled connection outlives its transfers, so each wait gets the deadline of its own transfer.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self, at_most: float = IDLE_MAX_S) -> float:
        """Seconds left, at most `at_most`, at least 0."""
        return max(0.0, min(at_most, self._at - time.monotonic()))

    def extend(self, seconds: float) -> None:
        """Do not count a wait that was not the origin's fault."""
        self._at += seconds

    @property
    def timeouts(self) -> dict[str, float]:
        """The extension `timeout` of a request to httpcore."""
        return {"connect": self, "read": self, "write": self, "pool": IDLE_MAX_S}


def left_of(timeout: float | None, at_most: float = IDLE_MAX_S) -> float | None:
    """Seconds that a wait with this time-out, which may be a `Deadline`, may take; None: no limit."""
    return timeout.left(at_most) if isinstance(timeout, Deadline) else timeout


class DeadlineStream(httpcore.NetworkStream):
    """A connection that understands a `Deadline` as time-out."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout, CONNECT_TIMEOUT_S)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, error: type[Exception], at_most: float = IDLE_MAX_S) -> float | None:
    left = left_of(timeout, at_most)
    if left == 0:
        raise error("the deadline of the fetch has passed")
    return left
