"""The number of unacknowledged messages of a subscription, which only Cloud Monitoring has."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import google.auth
from google.api_core.exceptions import from_http_response
from google.auth.transport.requests import AuthorizedSession

from visor.storage.gcp.errors import map_errors

METRIC = "pubsub.googleapis.com/subscription/num_undelivered_messages"
_SCOPE = "https://www.googleapis.com/auth/monitoring.read"
_FRESH_S = 30.0
_LOOK_BACK = timedelta(minutes=10)
"""Pub/Sub samples every minute, and a sample shows up to four minutes later."""


class Backlog:
    """The metric `num_undelivered_messages` of one subscription.

    Args:
        project: Id of the project.
        subscription: Name of the subscription.
        session: HTTP with credentials; made from the environment's if None.
        address: URL of Cloud Monitoring.
    """

    def __init__(
        self,
        project: str,
        subscription: str,
        *,
        session: Any = None,
        address: str = "https://monitoring.googleapis.com",
    ) -> None:
        self._url = f"{address}/v3/projects/{project}/timeSeries"
        self._filter = f'metric.type="{METRIC}" AND resource.labels.subscription_id="{subscription}"'
        self._session = session
        self._asked_at = -_FRESH_S
        self._count = 0

    def count(self) -> int:
        """The newest sample, minutes old; 0 if there is none. Asks at most every 30 s.

        Raises:
            StoreError: There are no credentials, or they do not allow reading metrics.
            StoreUnavailable: Cloud Monitoring does not answer.
        """
        if time.monotonic() - self._asked_at < _FRESH_S:
            return self._count
        with map_errors("Cloud Monitoring"):
            if self._session is None:
                credentials, _ = google.auth.default(scopes=[_SCOPE])
                self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
            now = datetime.now(UTC)
            interval = {"interval.startTime": _stamp(now - _LOOK_BACK), "interval.endTime": _stamp(now)}
            answer = self._session.get(self._url, params={"filter": self._filter, **interval}, timeout=10)
            if answer.status_code != 200:
                raise from_http_response(answer)  # type: ignore[no-untyped-call]
        # Each series has its newest point first.
        series = answer.json().get("timeSeries", [])
        self._count = sum(int(one["points"][0]["value"]["int64Value"]) for one in series)
        self._asked_at = time.monotonic()
        return self._count


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
