"""Every error that Google's libraries can raise has its place in our tree."""

from __future__ import annotations

import http.client
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import requests.exceptions
import urllib3.exceptions
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage

from visor.errors import Conflict, CorruptObject, NotFound, StoreError, StoreUnavailable, VisorError
from visor.storage.gcp.errors import TABLE, is_retriable, kind_of, map_errors, retrying

EXPECTED: dict[type[VisorError], str] = {
    NotFound: "NotFound",
    Conflict: "AlreadyExists Conflict FailedPrecondition PreconditionFailed",
    CorruptObject: "DataLoss DataCorruption",
    StoreUnavailable: """
        Aborted Cancelled TooManyRequests ResourceExhausted ServerError InternalServerError Unknown BadGateway
        ServiceUnavailable GatewayTimeout DeadlineExceeded RetryError GoogleAPICallError
        ResumableTransferError TransferStalledError UnseekableStreamError UploadCancelledError MissingStatusHeaderError
        TransportError TimeoutError
        ConnectionError ProxyError SSLError Timeout ConnectTimeout ReadTimeout ChunkedEncodingError ContentDecodingError
    """,
    StoreError: """
        GoogleAPIError DuplicateCredentialArgs Redirection MovedPermanently NotModified TemporaryRedirect
        ResumeIncomplete ClientError BadRequest InvalidArgument OutOfRange Unauthorized Unauthenticated Forbidden
        PermissionDenied MethodNotAllowed LengthRequired RequestRangeNotSatisfiable MethodNotImplemented
        InvalidPathError
        GoogleAuthError RefreshError UserAccessTokenError DefaultCredentialsError MutualTLSChannelError ClientCertError
        OAuthError ReauthFailError ReauthSamlChallengeFailError MalformedError InvalidResource InvalidOperation
        InvalidValue InvalidType OSError ResponseError
        RequestException InvalidJSONError JSONDecodeError HTTPError URLRequired TooManyRedirects MissingSchema
        InvalidSchema InvalidURL InvalidHeader InvalidProxyURL StreamConsumedError UnrewindableBodyError
    """,
}
KINDS = {name: kind for kind, names in EXPECTED.items() for name in names.split()}
# Not errors of a call: a base of another library's, the parents that storage borrows, and warnings.
ELSEWHERE = {
    "AsyncRestUnsupportedParameterError",
    "BaseHTTPError",
    "CompatJSONDecodeError",
    "DataCorruptionDynamicParent",
    "InvalidResponseDynamicParent",
    "InvalidResponse",
}


def errors_of(module: ModuleType) -> list[type[Exception]]:
    return [
        kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and name not in ELSEWHERE
    ]


def made(kind: type[Exception]) -> Exception:
    """An instance without what its constructor asks for."""
    if issubclass(kind, api.GoogleAPICallError):
        return kind("made up")
    error = kind.__new__(kind)
    if isinstance(error, auth.GoogleAuthError):
        error._retryable = False
    return error


@pytest.mark.parametrize("module", [api, auth, storage, requests.exceptions], ids=lambda module: module.__name__)
def test_no_error_is_missing(module: ModuleType) -> None:
    kinds = errors_of(module)
    assert kinds
    found = {kind.__name__: kind_of(made(kind)) for kind in kinds}
    assert found == {name: KINDS.get(name, f"say in the table what {name} is") for name in found}


def test_every_name_expected_exists() -> None:
    names = {kind.__name__ for module in (api, auth, storage, requests.exceptions) for kind in errors_of(module)}
    assert KINDS.keys() <= names


def test_lower_layers() -> None:
    for error in (
        urllib3.exceptions.ProtocolError("x"),
        urllib3.exceptions.ReadTimeoutError(SimpleNamespace(), "/", "x"),  # type: ignore[arg-type]
        http.client.IncompleteRead(b""),
        http.client.BadStatusLine("x"),
        ConnectionResetError("x"),
        BrokenPipeError("x"),
        TimeoutError("x"),
    ):
        assert kind_of(error) is StoreUnavailable, error


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), PermissionError("x"), KeyboardInterrupt()])
def test_mistakes_of_our_own_stay_what_they_are(error: BaseException) -> None:
    assert kind_of(error) is None
    with pytest.raises(type(error)), map_errors("Object a"):
        raise error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(404, NotFound), (412, Conflict), (403, StoreError), (416, StoreError)],
        *[(status, StoreUnavailable) for status in (408, 429, 500, 502, 503, 504)],
    ],
)
def test_answers_of_transfers_by_their_status(status: int, kind: type[VisorError]) -> None:
    response: Any = SimpleNamespace(status_code=status)
    assert kind_of(storage.InvalidResponse(response, "Request failed")) is kind


def test_a_query_without_its_index_is_no_conflict() -> None:
    error = api.FailedPrecondition("The query requires an index. You can create it here: https://…")
    with pytest.raises(StoreError, match="create it here") as caught, map_errors("Collection commits"):
        raise error
    assert type(caught.value) is StoreError
    assert caught.value.__cause__ is error


def test_credentials_that_may_come_are_tried_again() -> None:
    assert is_retriable(auth.RefreshError("metadata server is starting", retryable=True))
    assert not is_retriable(auth.RefreshError("account is disabled", retryable=False))


def test_a_deadline_tells_what_failed_before_it() -> None:
    def fail() -> None:
        raise api.ServiceUnavailable("connection refused")

    with pytest.raises(StoreUnavailable, match=r"Object a: ServiceUnavailable.*connection refused"):  # noqa: SIM117
        with map_errors("Object a"):
            retrying(0.01)(fail)()


def test_only_what_may_pass_is_tried_again() -> None:
    for foreign, kind in TABLE.items():
        error = made(foreign)
        assert is_retriable(error) == kind.retriable, foreign


def test_our_own_errors_pass_through() -> None:
    with pytest.raises(Conflict, match="mine"), map_errors("Object a"):
        raise Conflict("mine")
