"""`visor.connect`: an index on a server. Needs no model, and only an HTTP client."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from cachetools import LRUCache

from visor.errors import BadRequest, RequestError, StoreUnavailable, UnknownHandle, VisorError
from visor.library.index import Index, Progress, SearchResult, closed, id_of
from visor.schema.items import Item, Record
from visor.schema.push import PushAnswer, PushItem
from visor.schema.search import PICTURES, CompareAnswer, CompareRequest, SearchesRequest, SearchRequest
from visor.web.schema import ItemAnswer, Problem, SearchesAnswer, StatsAnswer

SEARCHES_MAX = 16
"""Searches that a server accepts at once."""
T = TypeVar("T", bound=Record)
HANDLES_KEPT = 256
"""Pictures whose handles are remembered, by their checksums."""
TIMEOUT_MAX_S = 86_400
REDIRECTS_MAX = 5
JSON, LINES = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}


def connect(url: str, *, key: str = "", timeout_s: float = 60.0) -> Index:
    """An index on a server: `visor serve`, or the search function on Google Cloud. Sends no request yet.

    Args:
        url: The URL of the server, without `/v1`.
        key: The owner's key, which `add` and `delete` need and which opens the owner's reserve to searches.
        timeout_s: How long the server may be silent.
    """
    return RemoteIndex(url, key=key, timeout_s=timeout_s)


class RemoteIndex(Index):
    """An index behind the HTTP endpoints (docs/http.md). Methods without an endpoint raise `BadRequest`."""

    def __init__(self, url: str, *, key: str, timeout_s: float) -> None:
        valid, remedy = "e.g. https://search.example", "Begin it with http:// or https://"
        if not (isinstance(url, str) and url.startswith(("http://", "https://"))):
            raise BadRequest(f"{url!r:.200} is not the URL of a server", valid=valid, remedy=remedy)
        if not (isinstance(key, str) and key.isascii() and key.isprintable()):
            raise BadRequest(
                "The key has characters that no header can hold" if isinstance(key, str) else f"The key is {key!r:.20}",
                valid="Printable ASCII, without a line end",
                remedy="Give the owner's key as the server has it",
            )
        if timeout_s is not None and not (isinstance(timeout_s, int | float) and 0 < timeout_s <= TIMEOUT_MAX_S):
            longest = f"A number of seconds above 0, at most {TIMEOUT_MAX_S:,}"
            raise BadRequest(f"timeout_s is {timeout_s!r:.50}", valid=longest, remedy="Correct it")
        headers = {"X-Visor-Key": key} if key else {}
        try:
            if not httpx.URL(url).host:
                raise httpx.InvalidURL("it names no host")
            self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        except httpx.InvalidURL as exc:
            found = f"{url!r:.200} is not the URL of a server: {exc}"
            raise BadRequest(found, valid=valid, remedy="Correct it") from exc
        self._process, self._inherited = os.getpid(), list[httpx.Client]()
        self._lock = threading.Lock()
        self._handles: LRUCache[bytes, str] = LRUCache(HANDLES_KEPT)

    @property
    def _http(self) -> httpx.Client:
        """The connections; in a process that was forked its own: on the parent's it could read the parent's answers."""
        theirs = self._client
        if self._process != os.getpid():
            self._inherited.append(theirs)
            self._client = httpx.Client(base_url=theirs.base_url, headers=theirs.headers, timeout=theirs.timeout)
            self._process = os.getpid()
            if theirs.is_closed:
                self._client.close()
        return self._client

    def close(self) -> None:
        self._http.close()

    def _search(self, request: SearchRequest, upload: bytes | None) -> SearchResult:
        if upload is not None:
            request = msgspec.structs.replace(request, remember=True)
        document = msgspec.json.encode(request)
        if upload is None:
            return self._ask("POST", "search", SearchResult, content=document, headers=JSON)
        picture = hashlib.sha256(upload).digest()
        handle = None
        if all(getattr(request, name) is None for name in PICTURES):  # else the server reports two
            with self._lock:
                handle = self._handles.pop(picture, None)
        try:
            if handle is None:
                raise UnknownHandle("It was not sent yet", remedy="Send it")
            again = msgspec.json.encode(msgspec.structs.replace(request, handle=handle))
            answer = self._ask("POST", "search", SearchResult, content=again, headers=JSON)
        except UnknownHandle:
            parts = {"image": ("image", upload), "request": (None, document)}
            answer = self._ask("POST", "search", SearchResult, files=parts)
        if answer.query.handle is not None:
            with self._lock:
                self._handles[picture] = answer.query.handle
        return answer

    def _search_all(self, asked: list[tuple[SearchRequest, bytes | None]]) -> list[SearchResult]:
        if len(asked) == 1:
            return super()._search_all(asked)
        found: list[SearchResult] = []
        for start in range(0, len(asked), SEARCHES_MAX):
            some = [_whole(request, upload) for request, upload in asked[start : start + SEARCHES_MAX]]
            content = msgspec.json.encode(SearchesRequest(searches=tuple(some)))
            for outcome in self._ask("POST", "searches", SearchesAnswer, content=content, headers=JSON).outcomes:
                if outcome.problem is not None:
                    raise error_from(outcome.problem)
                found.append(msgspec.convert(outcome.answer, SearchResult, from_attributes=True))
        return found

    def _compare(self, request: CompareRequest, uploads: tuple[bytes | None, bytes | None]) -> CompareAnswer:
        first, second = (
            _whole(picture, upload) for picture, upload in zip((request.first, request.second), uploads, strict=True)
        )
        content = msgspec.json.encode(CompareRequest(first=first, second=second))
        return self._ask("POST", "compare", CompareAnswer, content=content, headers=JSON)

    def get(self, item: str | Item) -> ItemAnswer:
        return self._ask("GET", f"items/{quote(id_of(item), safe='')}", ItemAnswer)

    def crawl(self, *_: Any, **__: Any) -> NoReturn:
        remedy = "Name the source in the server's visor.toml, or add items by their URLs"
        raise BadRequest("A server crawls on its own, not over HTTP", valid="An index of visor.open", remedy=remedy)

    def compact(self) -> NoReturn:
        remedy = "Run `visor compact` where the server runs"
        raise BadRequest("A server compacts on its own, not over HTTP", valid="An index of visor.open", remedy=remedy)

    def export(self, folder: object, **options: Any) -> NoReturn:
        remedy = "Run `visor export` where the server runs"
        raise BadRequest("A server is not exported over HTTP", valid="An index of visor.open", remedy=remedy)

    def delete(self, item: str | Item) -> None:
        self._ask("DELETE", f"items/{quote(id_of(item), safe='')}", PushAnswer)

    def stats(self) -> StatsAnswer:
        return self._ask("GET", "stats", StatsAnswer)

    def _push(self, items: list[PushItem], progress: Progress | None) -> PushAnswer:
        answer = self._ask(
            "POST", "items", PushAnswer, content=msgspec.json.Encoder().encode_lines(items), headers=LINES
        )
        if progress is not None:
            progress(len(items), len(items))
        return answer

    def _ask(self, method: str, path: str, kind: type[T], **content: Any) -> T:
        if self._http.is_closed:
            raise closed()
        try:
            response = self._request(method, f"v1/{path}", **content)
            if response.is_error:
                raise error_of(response)
            return msgspec.json.decode(response.content, type=kind)
        except httpx.HTTPError as exc:
            why = re.sub(r"^\[Errno -?\d+\] ", "", str(exc)) or type(exc).__name__
            found = f"{self._http.base_url} did not answer: {why}"
            raise StoreUnavailable(found, remedy="See that the server runs and that its URL is right") from exc
        except msgspec.DecodeError as exc:
            found = f"{self._http.base_url} does not answer as Visor does: {exc}"
            raise RequestError(found, remedy="Correct the URL, or install the server's version of Visor") from exc

    def _request(self, method: str, url: str | httpx.URL, **content: Any) -> httpx.Response:
        """The response behind the server's own redirects, as from http to https. Each is asked with the same method and
        body: a GET in place of them would be answered, too. Another server is sent neither key nor pictures."""
        for _ in range(REDIRECTS_MAX):
            response = self._http.request(method, url, **content)
            if response.next_request is None:
                return response
            here, url = response.url, response.next_request.url
            if url.host != here.host or (url.scheme, url.port) not in ((here.scheme, here.port), ("https", None)):
                found, valid = f"{self._http.base_url} redirects to {url.copy_with(query=None)}", "The server's own URL"
                raise RequestError(found, valid=valid, remedy="If you trust that server, connect to its URL")
        raise httpx.TooManyRedirects(f"more than {REDIRECTS_MAX} redirects")


def _whole(request: T, upload: bytes | None) -> T:
    """The request with the image that goes with it."""
    return request if upload is None else msgspec.structs.replace(request, image=base64.b64encode(upload).decode())


def error_of(response: httpx.Response) -> VisorError:
    """The error that the server raised, as its problem document describes it."""
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except msgspec.DecodeError:
        text = " ".join(re.sub(r"<[^>]*>?", " ", response.text[:2000]).split())[:200]
        found = f"The server answered {response.status_code}, but not as Visor does: {text!r}"
        problem = Problem(type="", title="", status=response.status_code, detail="", found=found)
    error = error_from(problem)
    wait_s = response.headers.get("Retry-After", "")
    if hasattr(error, "retry_after_s") and wait_s.isdigit():
        error.retry_after_s = float(wait_s)
    return error


def error_from(problem: Problem) -> VisorError:
    """The error that a problem document describes."""
    other = StoreUnavailable if problem.status >= 500 else RequestError
    kind = _classes(VisorError).get(problem.type.removeprefix("urn:visor:"), other)
    return kind(problem.found or problem.title, valid=problem.valid, remedy=problem.remedy)


def _classes(kind: type[VisorError]) -> dict[str, type[VisorError]]:
    """A class and its subclasses, by code; one without its own code counts as its parent."""
    below = [_classes(child) for child in kind.__subclasses__()]
    return {code: found for children in below for code, found in children.items()} | {kind.code: kind}
