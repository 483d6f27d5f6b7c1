"""Asks a catalogue's origin: tries again where that may help, gives up in time, and shows no secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import msgspec

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable, SourceError, SourceUnavailable
from visor.http.fetch import Fetched, FetchedStream, FetchOptions
from visor.http.retry import RetryPolicy
from visor.sources.contract import SourceContext

PAGE_BYTES_MAX = 64_000_000
"""One page of an API or a document of a site; feeds and videos are streamed and have limits of their own."""

Answer = TypeVar("Answer")


class RetryingClient:
    """One source's way to the network, through the context's fetcher."""

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
        self._options = FetchOptions(accept=accept, headers=dict(headers or {}), bytes_max=PAGE_BYTES_MAX)

    def get(self, url: str, *, etag: str | None = None, modified: str | None = None) -> Fetched:
        """The response to one GET, after as many attempts as the policy allows.

        Raises:
            SourceUnavailable: It did not answer, or asks to wait longer than this run does.
            FetchFailed: It said no for good.
            SourceError: Its URL is not one that Visor fetches.
        """
        options = msgspec.structs.replace(self._options, etag=etag, modified=modified)
        return self._retrying(lambda: self._context.fetcher.fetch(url, options))

    def get_json(self, url: str, *, check: Callable[[Any], None] | None = None) -> tuple[Any, Fetched]:
        """`get`, and what its body says. A body that is cut off or is an error page counts as no answer.

        Args:
            check: Raises `FetchUnavailable` for an answer that says, with status 200, that there is none for now.
        """

        def read() -> tuple[Any, Fetched]:
            fetched = self._context.fetcher.fetch(url, self._options)
            try:
                answer = msgspec.json.decode(fetched.body)
            except msgspec.DecodeError as exc:
                start = fetched.body[:60].decode("utf-8", "replace")
                raise FetchUnavailable(f"{url} answers {start!r}, which is not JSON ({exc})") from exc
            if check is not None:
                check(answer)
            return answer, fetched

        return self._retrying(read)

    @contextmanager
    def stream(
        self, url: str, *, etag: str | None = None, modified: str | None = None, bytes_max: int, deadline_s: float
    ) -> Iterator[FetchedStream]:
        """The response to one GET, chunk by chunk. Opening it is tried as often as the policy allows.

        Raises:
            SourceUnavailable: It did not answer, or broke off in the middle.
            SourceError: It said no for good, or is too large.
        """
        options = msgspec.structs.replace(
            self._options, etag=etag, modified=modified, bytes_max=bytes_max, deadline_s=deadline_s
        )
        with ExitStack() as stack:
            stream = self._retrying(lambda: stack.enter_context(self._context.fetcher.stream(url, options)))
            yield msgspec.structs.replace(stream, chunks=self._mapped(stream.chunks))

    def _mapped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        except FetchUnavailable as exc:
            raise self._unavailable(self._shown(exc.found)) from None
        except FetchFailed as exc:
            raise SourceError(f"Source '{self.source}': {self._shown(exc.found)}", remedy=exc.remedy) from None

    def _retrying(self, ask: Callable[[], Answer]) -> Answer:
        def counted() -> Answer:
            self.requests += 1
            return ask()

        try:
            return self._patience.call(counted, on=FetchUnavailable, sleep=self._context.sleep)
        except FetchUnavailable as exc:
            why = self._shown(exc.found).rstrip(".")
            wait_s = exc.retry_after_s or 0.0
            if wait_s > self._patience.delay_max_s:
                raise self._unavailable(f"{why}, and asks to wait {wait_s:.0f} s") from None
            raise self._unavailable(f"{why} ({self._patience.attempts} attempts)") from None
        except FetchRefused as exc:
            raise SourceError(self._shown(exc.found), valid=exc.valid, remedy=exc.remedy) from None
        except FetchFailed as exc:
            shown = FetchFailed(self._shown(exc.found), valid=exc.valid, remedy=exc.remedy, status=exc.status)
            raise shown from None

    def _unavailable(self, why: str) -> SourceUnavailable:
        return SourceUnavailable(f"Source '{self.source}': {why}", remedy="The next run goes on from the checkpoint")

    def _shown(self, text: str) -> str:
        return self._context.secrets.hide(text)
