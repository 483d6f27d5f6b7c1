"""HTTP client of the sources: retries if that may help, gives up in time, and keeps secrets out of errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from visor.errors import FetchFailed, FetchRefused, FetchUnavailable, ImageError, SourceError, SourceUnavailable
from visor.http.fetch import Fetched, FetchedStream, FetchOptions
from visor.http.retry import RetryPolicy
from visor.schema.words import counted
from visor.sources.contract import SourceContext
from visor.sources.parse.json import NotJson, parse_json, said_by

PAGE_BYTES_MAX = 64_000_000
"""One page of an API or a document of a site; feeds and videos are streamed and have their own limits."""

Answer = TypeVar("Answer")
_JSON_LINES = re.compile(r"(?:application|text)/(?:x-)?(?:ndjson|jsonl|jsonlines|json-lines|json-seq)\Z")
_XML = re.compile(r"(?:application|text)/(?:(?!xhtml)[\w.-]+\+)?xml\Z")


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
        self._options = FetchOptions(accept=accept, headers=dict(headers or {}), bytes_max=PAGE_BYTES_MAX)

    def get(self, url: str, *, etag: str | None = None, modified: str | None = None) -> Fetched:
        """The response to one GET, after as many attempts as the policy allows.

        Raises:
            SourceUnavailable: The server did not answer, or asks for a longer wait than a run allows.
            FetchFailed: The server refused for good, or Visor does not fetch this URL. If the URL was found, not
                configured, only this page or picture fails; `required` makes the whole source fail.
        """
        options = msgspec.structs.replace(self._options, etag=etag, modified=modified)
        return self._retrying(lambda: self._context.fetcher.fetch(url, options))

    def get_json(self, url: str, *, check: Callable[[Any], None] | None = None) -> tuple[Any, Fetched]:
        """As `get`, with its body as JSON (`visor.sources.parse.json`), JSON Lines as a list, or XML as an object of
        its elements. Raises as `get`: a body that was cut off, or is an error page, counts as unavailable, and one
        with a mistake counts as refused.

        Args:
            check: Raises `FetchUnavailable` for a response that reports, with status 200, a temporary failure.
        """

        def read() -> tuple[Any, Fetched]:
            fetched = self._context.fetcher.fetch(url, self._options)
            try:
                answer = _parsed(fetched)
            except NotJson as exc:
                # If a key were cut off here, the rest of it could not be hidden.
                start = self._context.secrets.hide(fetched.body[:2000].decode("utf-8", "replace"))[:60]
                where = str(exc).partition(": ")[0]
                found = f"{url.partition('?')[0]} answers {start!r}, which is not JSON ({where})"
                if exc.malformed:
                    raise FetchFailed(
                        found, remedy="Tell the API's maker: any program that reads JSON stops there"
                    ) from exc
                raise FetchUnavailable(found) from exc
            if check is not None:
                check(answer)
            return answer, fetched

        return self._retrying(read)

    @contextmanager
    def stream(
        self, url: str, *, etag: str | None = None, modified: str | None = None, bytes_max: int, deadline_s: float
    ) -> Iterator[FetchedStream]:
        """The response to one GET, chunk by chunk. Opening it is retried as the policy allows.

        Raises:
            SourceUnavailable: The server did not answer, or broke off in the middle.
            FetchFailed: As `get`, or the body is too large.
        """
        options = msgspec.structs.replace(
            self._options, etag=etag, modified=modified, bytes_max=bytes_max, deadline_s=deadline_s
        )
        with ExitStack() as stack:
            stream = self._retrying(lambda: stack.enter_context(self._context.fetcher.stream(url, options)))
            yield msgspec.structs.replace(stream, chunks=self._mapped(stream.chunks))

    @contextmanager
    def required(self) -> Iterator[None]:
        """For configured URLs: within it, a refusal for good (`FetchFailed`) is a `SourceError` and ends the run."""
        try:
            yield
        except FetchFailed as exc:
            raise SourceError(f"Source '{self.source}': {exc.found}", valid=exc.valid, remedy=exc.remedy) from exc

    def _mapped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self._translated():
            yield from chunks

    def _retrying(self, ask: Callable[[], Answer]) -> Answer:
        def asked() -> Answer:
            self.requests += 1
            return ask()

        with self._translated(f", after {counted(self._patience.attempts, 'attempt')}"):
            return self._patience.call(asked, on=FetchUnavailable, sleep=self._context.sleep)

    @contextmanager
    def _translated(self, tried: str = "") -> Iterator[None]:
        """Within it, a fetcher's errors become those that a source raises."""
        try:
            yield
        except FetchUnavailable as exc:
            wait_s = exc.retry_after_s or 0.0
            is_long = tried and wait_s > self._patience.delay_max_s
            why = self._shown(exc).rstrip(".") + (f", and asks to wait {wait_s:.0f} s" if is_long else tried)
            raise SourceUnavailable(
                f"Source '{self.source}': {why}", remedy="The next run goes on from the checkpoint"
            ) from None
        except (FetchFailed, FetchRefused) as exc:
            elsewhere = self._context.secrets.hide(exc.elsewhere) if isinstance(exc, FetchFailed) else ""
            # Another host's answer says nothing about the URL that was requested.
            status = exc.status if isinstance(exc, FetchFailed) and not elsewhere else None
            found = self._shown(exc) + (f": it leads to another host, {elsewhere:.200}" if elsewhere else "")
            raise FetchFailed(found, valid=exc.valid, remedy=exc.remedy, status=status) from None

    def _shown(self, exc: ImageError) -> str:
        """What was found, with the origin's own message about it, and without secrets."""
        said = ""
        with suppress(NotJson):
            said = said_by(parse_json(exc.answer)) if exc.answer else ""
        return self._context.secrets.hide(exc.found + (f": {said!r}" if said else ""))


def _parsed(fetched: Fetched) -> Any:
    kind = fetched.media_type or ""
    if _JSON_LINES.match(kind):
        return [parse_json(line, fetched.charset) for line in fetched.body.splitlines() if line.strip()]
    return _parse_xml(fetched.body) if _XML.match(kind) else parse_json(fetched.body, fetched.charset)


def _parse_xml(body: bytes) -> Any:
    """Elements as keys with their prefixes, `@name` for attributes, `#text` next to these, lists for repetitions."""
    import xmltodict

    try:
        return xmltodict.parse(body)
    except Exception as exc:  # the parser raises many errors for broken text, and ValueError for entities
        raise NotJson(f"nor XML, {exc}") from exc
