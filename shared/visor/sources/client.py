"""HTTP client of the sources: retries where that may help, gives up in time, and keeps secrets out of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable, SourceError, SourceUnavailable
from visor.http.response import Fetched, FetchedStream
from visor.sources.contract import SourceContext

PAGE_BYTES_MAX = 64_000_000
"""One page of an API or a document of a site; feeds and videos are streamed and have limits of their own."""

Answer = TypeVar("Answer")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a source retries a server that does not answer."""

    attempts: Annotated[int, Meta(ge=1)] = 5
    delay_s: float = 1.0
    """Before the second attempt; doubles with each further attempt."""
    delay_max_s: float = 60.0
    """A longer Retry-After ends the run; the next run goes on from the checkpoint."""


class RetryingClient:
    """One source's HTTP client, on top of the context's fetcher."""

    def __init__(
        self,
        source: str,
        context: SourceContext,
        *,
        patience: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "*/*",
    ) -> None:
        self.source = source
        self.requests = 0
        self._context = context
        self._patience = patience or RetryPolicy()
        self._headers = dict(headers or {})
        self._accept = accept

    def get(self, url: str, *, etag: str | None = None, modified: str | None = None) -> Fetched:
        """The response to one GET, after as many attempts as the policy allows.

        Raises:
            SourceUnavailable: The server did not answer, or asks to wait longer than a run does.
            FetchFailed: The server refused for good.
            SourceError: Visor does not fetch this URL.
        """
        return self._ask(url, lambda fetched: fetched, etag=etag, modified=modified)

    def get_json(self, url: str, *, check: Callable[[Any], None] | None = None) -> tuple[Any, Fetched]:
        """`get`, and its body as JSON. A body that is truncated or an error page counts as unavailable.

        Args:
            check: Raises `FetchUnavailable` for a response that reports, with status 200, a temporary failure.
        """

        def read(fetched: Fetched) -> tuple[Any, Fetched]:
            try:
                answer = msgspec.json.decode(fetched.body)
            except msgspec.DecodeError as exc:
                start = fetched.body[:60].decode("utf-8", "replace")
                raise FetchUnavailable(f"{url} answers {start!r}, which is not JSON ({exc})") from exc
            if check is not None:
                check(answer)
            return answer, fetched

        return self._ask(url, read)

    @contextmanager
    def stream(
        self, url: str, *, etag: str | None = None, modified: str | None = None, bytes_max: int, deadline_s: float
    ) -> Iterator[FetchedStream]:
        """The response to one GET, piece by piece. Opening it is retried as the policy allows.

        Raises:
            SourceUnavailable: The server did not answer, or broke off in the middle.
            SourceError: The server refused for good, or the body is too large.
        """
        with ExitStack() as stack:

            def opened() -> FetchedStream:
                return stack.enter_context(
                    self._context.fetcher.stream(
                        url,
                        etag=etag,
                        modified=modified,
                        accept=self._accept,
                        bytes_max=bytes_max,
                        deadline_s=deadline_s,
                        headers=self._headers or None,
                    )
                )

            stream = self._patiently(opened)
            yield stream._replace(pieces=self._translated(stream.pieces))

    @contextmanager
    def required(self) -> Iterator[None]:
        """Within it, a refusal for good (`FetchFailed`) is the `SourceError` that ends the run."""
        try:
            yield
        except FetchFailed as exc:
            raise SourceError(f"Source '{self.source}': {exc.found}", valid=exc.valid, remedy=exc.remedy) from exc

    def _translated(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except FetchUnavailable as exc:
            raise SourceUnavailable(
                f"Source '{self.source}': {self._shown(exc.found)}",
                remedy="The next run goes on from the checkpoint",
            ) from None
        except FetchFailed as exc:
            raise SourceError(f"Source '{self.source}': {self._shown(exc.found)}", remedy=exc.remedy) from None

    def _ask(
        self, url: str, read: Callable[[Fetched], Answer], *, etag: str | None = None, modified: str | None = None
    ) -> Answer:
        def asked() -> Answer:
            return read(
                self._context.fetcher.fetch(
                    url,
                    etag=etag,
                    modified=modified,
                    accept=self._accept,
                    bytes_max=PAGE_BYTES_MAX,
                    headers=self._headers or None,
                )
            )

        return self._patiently(asked)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        for attempt in range(1, self._patience.attempts + 1):
            self.requests += 1
            try:
                return ask()
            except FetchUnavailable as exc:
                self._wait(attempt, exc)
            except FetchRefused as exc:
                raise SourceError(self._shown(exc.found), valid=exc.valid, remedy=exc.remedy) from None
            except FetchFailed as exc:
                shown = FetchFailed(self._shown(exc.found), valid=exc.valid, remedy=exc.remedy, status=exc.status)
                raise shown from None
        raise AssertionError("unreachable: the last attempt raises")

    def _wait(self, attempt: int, exc: FetchUnavailable) -> None:
        delay_s = min(self._patience.delay_s * 2 ** (attempt - 1), self._patience.delay_max_s)
        if exc.retry_after_s is not None:
            delay_s = max(delay_s, exc.retry_after_s)
        why = self._shown(exc.found).rstrip(".")
        if attempt == self._patience.attempts:
            raise SourceUnavailable(
                f"Source '{self.source}': {why} ({attempt} attempts)",
                remedy="The next run goes on from the checkpoint",
            ) from None
        if delay_s > self._patience.delay_max_s:
            raise SourceUnavailable(
                f"Source '{self.source}': {why}, and asks to wait {delay_s:.0f} s",
                remedy="The next run goes on from the checkpoint",
            ) from None
        self._context.sleep(delay_s)

    def _shown(self, text: str) -> str:
        return self._context.secrets.hide(text)
