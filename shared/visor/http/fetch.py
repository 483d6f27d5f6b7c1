"""The contract of a fetch: what may be asked, what comes back, and the protocols that say who can do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from visor.schema.items import Record


class FetchOptions(Record, frozen=True, kw_only=True):
    """How one URL is fetched. A reader that is not of the web looks at `modified` and `bytes_max` at most."""

    accept: str = "image/*"
    """Media types. For images, a body that is something else fails; other types allow gzip."""
    etag: str | None = None
    """Validator of an earlier response; if it still holds, the response is `not_modified`."""
    modified: str | None = None
    """The same by `Last-Modified`."""
    headers: Mapping[str, str] = {}
    """Further request headers, such as an API key. A redirect to another host does not get to see them."""
    bytes_max: int | None = None
    """Limit of the body; None: `settings.fetch_bytes_max`."""
    deadline_s: float | None = None
    """Time for the whole transfer with its redirects; None: `settings.fetch_timeout_s`."""
    slot_wait_s: float | None = None
    """Time to wait for a slot at a busy host, not counted in `deadline_s`; None: four deadlines."""
    pause_max_s: float = 3600.0
    """Longest pause of the host that its answer to this may bring about."""


IMAGE = FetchOptions()


class Response(Record, frozen=True, kw_only=True):
    """What the head of a response says."""

    url: str
    """The URL that answered, after redirects."""
    media_type: str = ""
    """`Content-Type` without parameters, in lower case; what the origin claims, not what the bytes are."""
    charset: str | None = None
    etag: str | None = None
    modified: str | None = None
    """`Last-Modified` as it was sent."""
    headers: Mapping[str, str] = {}
    """All headers, their names in lower case; one that is repeated is joined by `, `."""
    not_modified: bool = False
    """The validators that were passed still hold; there is no body."""
    robots: tuple[str, ...] = ()
    """The values of `X-Robots-Tag`."""


class Fetched(Response, frozen=True, kw_only=True):
    """A response in memory."""

    body: bytes


class FetchedStream(Response, frozen=True, kw_only=True):
    """A response whose body is read chunk by chunk, while its context is open."""

    chunks: Iterator[bytes]


class Probed(Record, frozen=True, kw_only=True):
    """What a URL said when it was only asked whether it is still there."""

    url: str
    """The URL that answered, after redirects."""
    permanent_url: str
    """The URL to ask for from now on: where permanent redirects (301, 308) lead; without any, the one that was asked,
    as it was written."""


class Fetch(Protocol):
    """Reads one URL into memory."""

    def fetch(self, url: str, options: FetchOptions = IMAGE) -> Fetched:
        """The response to one GET, after at most `REDIRECTS_MAX` redirects.

        Raises:
            FetchRefused: The URL, or one that it redirects to, is not fetched.
            FetchFailed: The origin refused, or what it sent is too large or no image.
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
    """Tells whether a URL is still there."""

    def probe(self, url: str, *, is_image: bool) -> Probed:
        """Whether a URL still gives what it should, for the price of its first bytes. Raises as `fetch` does.

        Args:
            is_image: The body has to begin like an image; else any will do.
        """
        ...
