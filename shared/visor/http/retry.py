"""Retries: one policy for catalogues that do not answer, lost races and objects that were just replaced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

Result = TypeVar("Result")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a call that failed for now is tried again, and how long to wait in between."""

    attempts: Annotated[int, Meta(ge=1)] = 5
    delay_s: float = 1.0
    """Wait before the second attempt; doubles with each further one."""
    delay_max_s: float = 60.0
    """A longer Retry-After ends the attempts: for a source, the next run goes on from the checkpoint."""

    def delay(self, attempt: int, error: BaseException | None = None) -> float:
        """Seconds to wait after a failed attempt (1, 2, …): longer than `delay_max_s` only if the error asks for it.

        Args:
            error: Its `retry_after_s`, if it has one, is the shortest wait.
        """
        return max(
            min(self.delay_s * 2.0 ** (attempt - 1), self.delay_max_s), getattr(error, "retry_after_s", None) or 0.0
        )

    def call(
        self,
        function: Callable[[], Result],
        *,
        on: type[Exception] | tuple[type[Exception], ...],
        sleep: Callable[[float], None] = time.sleep,
    ) -> Result:
        """The result of `function`, which is called again after an error in `on`.

        The error is raised after the last attempt, or if it asks for a wait of more than `delay_max_s`.
        """
        attempt = 1
        while True:
            try:
                return function()
            except on as exc:
                delay_s = self.delay(attempt, exc)
                if attempt >= self.attempts or delay_s > self.delay_max_s:
                    raise
            sleep(delay_s)
            attempt += 1
