"""The contract of a fetch: its options, its results, and the protocols of objects that can fetch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from visor.schema.items import Record


class FetchOptions(Record, frozen=True, kw_only=True):
    """How one URL is fetched. Readers of other schemes than http(s) use at most `modified` and `bytes_max`."""

    accept: str = "image/*"
    """Media types. For images, any other body fails; other types allow gzip."""
    etag: str | None = None
    """Validator of an earlier response; if it still holds, the response is `not_modified`."""
    modified: str | None = None
    """The same by `Last-Modified`."""
    headers: Mapping[str, str] = {}
    """Further request headers, such as an API key. They are not sent to another host after a redirect."""
    bytes_max: int | None = None
    """Limit of the body; None: `settings.fetch_bytes_max`."""
    deadline_s: float | None = None
    """Time for the whole transfer with its redirects; None: `settings.fetch_timeout_s`."""
    slot_wait_s: float | None = None
    """Time to wait for a slot at a busy host, not counted in `deadline_s`; None: four deadlines."""
    pause_max_s: float = 3600.0
    """Longest pause of the host that its answer may cause."""


IMAGE = FetchOptions()


class Response(Record, frozen=True, kw_only=True):
    """The head of a response."""

    url: str
    """The URL that answered, after redirects."""
    media_type: str = ""
    """`Content-Type` without parameters, in lower case: the origin's claim, not detected from the bytes."""
    charset: str | None = None
    etag: str | None = None
    modified: str | None = None
    """`Last-Modified` as it was sent."""
    headers: Mapping[str, str] = {}
    """All headers, their names in lower case; repeated ones are joined by `, `."""
    not_modified: bool = False
    """The given validators still hold; there is no body."""
    robots: tuple[str, ...] = ()
    """The values of `X-Robots-Tag`."""


class Fetched(Response, frozen=True, kw_only=True):
    """A response in memory."""

    body: bytes


class FetchedStream(Response, frozen=True, kw_only=True):
    """A response whose body is read chunk by chunk, while its context is open."""

    chunks: Iterator[bytes]


class Probed(Record, frozen=True, kw_only=True):
    """The result of checking whether a URL is still there."""

    url: str
    """The URL that answered, after redirects."""
    permanent_url: str
    """The URL to use from now on: the target of permanent redirects (301, 308), or, without any, the requested one as
    it was written."""


class Fetch(Protocol):
    """Reads one URL into memory."""

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """The response to one GET, after at most `REDIRECTS_MAX` redirects.

        Raises:
            FetchRefused: The URL, or one that it redirects to, is not allowed.
            FetchFailed: The origin refused, or its body is too large or not an image.
            FetchUnavailable: The origin did not answer, or wants to be asked later.
        """
        ...


class StreamingFetch(Fetch, Protocol):
    """Also reads bodies that are too large for memory."""

    def stream(self, url: str, options: FetchOptions) -> AbstractContextManager[FetchedStream]:
        """The response to one GET as a stream. Opening it and reading its chunks raise as `fetch` does.

        The host's slot is held while the context is open.
        """
        ...


class Prober(Protocol):
    """Checks whether a URL is still there."""

    def probe(self, url: str, *, is_image: bool) -> Probed:
        """Check whether a URL still answers as it should, by reading only its first bytes. Raises as `fetch` does.

        Args:
            is_image: The body has to begin like an image; otherwise any body is accepted.
        """
        ...
