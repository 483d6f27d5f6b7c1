"""The errors of Google's libraries as ours, in one table, and which of them are tried again."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests.exceptions as http_errors
import urllib3.exceptions as pool_errors
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage

from visor.errors import Conflict, CorruptObject, NotFound, StoreError, StoreUnavailable, VisorError

TABLE: dict[type[Exception], type[VisorError]] = {
    # Answers of the services
    api.NotFound: NotFound,
    api.AlreadyExists: Conflict,
    api.Conflict: Conflict,
    api.FailedPrecondition: Conflict,
    api.PreconditionFailed: Conflict,
    api.Aborted: StoreUnavailable,
    api.Cancelled: StoreUnavailable,
    api.TooManyRequests: StoreUnavailable,
    api.ServerError: StoreUnavailable,
    api.MethodNotImplemented: StoreError,
    api.DataLoss: CorruptObject,
    api.ResumableTransferError: StoreUnavailable,
    api.RetryError: StoreUnavailable,
    api.ClientError: StoreError,
    api.Redirection: StoreError,
    api.GoogleAPICallError: StoreUnavailable,
    api.GoogleAPIError: StoreError,
    # Bodies that differ from what was sent
    storage.DataCorruption: CorruptObject,
    storage.InvalidPathError: StoreError,
    # The network
    http_errors.ConnectionError: StoreUnavailable,
    http_errors.Timeout: StoreUnavailable,
    http_errors.ChunkedEncodingError: StoreUnavailable,
    http_errors.ContentDecodingError: StoreUnavailable,
    http_errors.RetryError: StoreUnavailable,
    http_errors.RequestException: StoreError,
    pool_errors.HTTPError: StoreUnavailable,
    http.client.HTTPException: StoreUnavailable,
    ConnectionError: StoreUnavailable,
    TimeoutError: StoreUnavailable,
    # Credentials
    auth.TransportError: StoreUnavailable,
    auth.TimeoutError: StoreUnavailable,
    auth.GoogleAuthError: StoreError,
}
"""The first of an error's classes in the table decides, from its own class upwards."""

_ADVICE: dict[type[VisorError], tuple[str, str]] = {
    NotFound: ("A name that exists", "Check project, bucket and names; terraform makes what is missing"),
    Conflict: ("What the caller had read, unchanged", "Read it again and decide anew"),
    StoreUnavailable: ("An answer within the deadline", "Repeat the call; see status.cloud.google.com if it persists"),
    CorruptObject: ("Bytes whose CRC32C is the one that was stored", "Repeat the call; write the object anew"),
    StoreError: (
        "A call that this service account may make",
        "Check the roles of its service account, the settings, and that the APIs are enabled",
    ),
}


def kind_of(exc: BaseException) -> type[VisorError] | None:
    """Our class for a foreign error; None if stores do not translate it."""
    if isinstance(exc, storage.InvalidResponse):
        # Transfers raise this one for every status; it means the same as that status elsewhere.
        return kind_of(api.from_http_status(exc.response.status_code, ""))  # type: ignore[no-untyped-call]
    if isinstance(exc, auth.GoogleAuthError) and exc.retryable:
        return StoreUnavailable
    if isinstance(exc, api.FailedPrecondition) and "index" in str(exc):
        # From a query: Firestore lacks its composite index, and the message has the link to make it.
        return StoreError
    return next((TABLE[kind] for kind in type(exc).__mro__ if kind in TABLE), None)


def is_retriable(exc: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    kind = kind_of(exc)
    return kind is not None and kind.retriable


def retrying(deadline_s: float, on_error: Callable[[Exception], Any] | None = None) -> Retry:
    """A policy that retries after retriable errors, first after about 0.2 s, doubling up to 5 s, until the deadline."""
    return Retry(
        predicate=is_retriable, initial=0.2, maximum=5.0, multiplier=2.0, timeout=deadline_s, on_error=on_error
    )


@contextmanager
def map_errors(what: str) -> Iterator[None]:
    """Raise errors of Google's libraries as ours. `what` begins the message, e.g. 'Object shards/1'."""
    try:
        yield
    except VisorError:
        raise
    except Exception as exc:
        kind = kind_of(exc)
        if kind is None:
            raise
        cause = exc.cause if isinstance(exc, api.RetryError) and exc.cause is not None else exc
        valid, remedy = _ADVICE[kind]
        raise kind(f"{what}: {_in_words(cause)}", valid=valid, remedy=remedy) from exc


def _in_words(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}"[:500]
