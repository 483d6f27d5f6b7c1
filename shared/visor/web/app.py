"""The HTTP contract of the search function, as one callable from a Flask request to a Flask response."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
from flask import Request, Response
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import RequestEntityTooLarge as BodyTooLarge
from werkzeug.routing import Map, RequestRedirect, Rule

from visor import __version__
from visor.errors import (
    BadRequest,
    FetchFailed,
    ImageError,
    KeyRequired,
    RequestError,
    RequestTooLarge,
    UnknownItem,
    UnsupportedMediaType,
    VisorError,
)
from visor.images.frames import NAME, read_frame
from visor.pipeline.explain import Explainer
from visor.pipeline.push import Pusher
from visor.pipeline.search import SearchService
from visor.pipeline.serving import Serving
from visor.records import Item, Record
from visor.settings import Settings
from visor.stores.objects import ObjectStore
from visor.web import openapi
from visor.web.contract import (
    ExplainRequest,
    FeedbackAnswer,
    FeedbackRequest,
    Filters,
    HealthAnswer,
    ItemAnswer,
    ItemsAnswer,
    MeterAnswer,
    ModelAnswer,
    Problem,
    PushItem,
    SearchRequest,
    StatsAnswer,
)
from visor.web.gate import KEY_HEADER, Gate

LOG = logging.getLogger("visor.web")
SEARCHES_REMEMBERED = 1_000
LINES = "application/x-ndjson"
FEEDBACK_BYTES_MAX = 100_000
"""A vector in base64 is 9 KB."""
T = TypeVar("T", bound=Record)
S = TypeVar("S", bound=SearchRequest)

ROUTES = Map(
    [
        Rule("/v1/search", endpoint="search", methods=["POST"]),
        Rule("/v1/explain", endpoint="explain", methods=["POST"]),
        Rule("/v1/feedback", endpoint="feedback", methods=["POST"]),
        Rule("/v1/facets", endpoint="facets", methods=["GET"]),
        Rule("/v1/items", endpoint="items", methods=["GET"]),
        Rule("/v1/items", endpoint="push", methods=["POST"]),
        Rule("/v1/items/<id>", endpoint="item", methods=["GET"]),
        Rule("/v1/items/<id>", endpoint="delete", methods=["DELETE"]),
        Rule("/v1/thumbnails/<name>", endpoint="thumbnail", methods=["GET"]),
        Rule("/v1/stats", endpoint="stats", methods=["GET"]),
        Rule("/v1/health", endpoint="health", methods=["GET"]),
        Rule("/openapi.json", endpoint="openapi", methods=["GET"]),
    ],
    strict_slashes=False,
)


class SearchApp:
    """Answers HTTP requests with a `SearchService`. Thread-safe; one a process."""

    def __init__(
        self,
        service: SearchService | Serving,
        settings: Settings,
        gate: Gate,
        *,
        pusher: Callable[[], Pusher] | None = None,
        objects: ObjectStore | None = None,
        read_image: Callable[[Item], bytes] | None = None,
    ) -> None:
        """
        Args:
            pusher: Makes what takes pushed items in, when the first of them comes; None: nothing does.
            objects: Where frames of videos are kept, for their thumbnails.
            read_image: Gives the bytes of an item's picture, to explain matches; None: they are not explained.
        """
        self._service = service
        self.settings, self.gate, self._pusher, self.objects = settings, gate, pusher, objects
        self._stages: deque[dict[str, float]] = deque(maxlen=SEARCHES_REMEMBERED)
        self._searches = 0
        self._read_image = read_image

    @property
    def service(self) -> SearchService:
        """The one to answer a request with: taken once a request, for the index may switch to another model."""
        return self._service if isinstance(self._service, SearchService) else self._service()

    def __call__(self, request: Request) -> Response:
        """Answer one request. Never raises: what goes wrong becomes an RFC 9457 problem document."""
        try:
            if request.method == "OPTIONS":
                response = Response(status=204)
            else:
                endpoint, arguments = ROUTES.bind("").match(request.path, request.method)
                response = getattr(self, f"_{endpoint}")(request, **arguments)
        except VisorError as exc:
            response = _problem(exc, status_of(exc))
        except BodyTooLarge as exc:
            response = _problem(self._too_large(request), exc.code)
        except RequestRedirect as exc:
            response = _http_problem(request, 404, f"Nothing is at {request.path}; try {exc.new_url}")
        except HTTPException as exc:
            response = _http_problem(request, exc.code or 500, exc.description or exc.name)
            if isinstance(exc, MethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted({*(exc.valid_methods or ()), "OPTIONS"}))
        except Exception:
            LOG.exception("A request to %s failed", request.path)
            response = _http_problem(request, 500, "Visor made a mistake; its log says more")
        finally:
            request.close()
        return self._with_headers(request, response)

    def _search(self, request: Request) -> Response:
        self.gate.admit(request)
        started = time.perf_counter()
        body, upload = self._body(request, SearchRequest)
        answer = self.service.search(body, upload)
        self._searches += 1
        self._stages.append(answer.timing_ms)
        response = _json(answer)
        self.gate.count(seconds=time.perf_counter() - started, response_bytes=len(response.get_data()))
        response.call_on_close(self.service.auditor.check)
        return response

    def _explain(self, request: Request) -> Response:
        self.gate.admit(request)
        started = time.perf_counter()
        if self._read_image is None:
            raise BadRequest("This server cannot fetch pictures of items", valid="It answers searches")
        body, upload = self._body(request, ExplainRequest)
        self.service.refresh()
        response = _json(Explainer(self.service, self._read_image).explain(body, upload))
        self.gate.count(seconds=time.perf_counter() - started, response_bytes=len(response.get_data()))
        return response

    def _feedback(self, request: Request) -> Response:
        self.gate.admit(request)
        started = time.perf_counter()
        if request.mimetype != "application/json":
            raise _not_read(request, "application/json")
        if (request.content_length or 0) > FEEDBACK_BYTES_MAX:
            raise self._too_large(request, FEEDBACK_BYTES_MAX)
        request.max_content_length = FEEDBACK_BYTES_MAX
        self.service.reject(_decode(request.get_data(), FeedbackRequest))
        response = _json(FeedbackAnswer())
        self.gate.count(seconds=time.perf_counter() - started, response_bytes=len(response.get_data()))
        return response

    def _body(self, request: Request, kind: type[S]) -> tuple[S, bytes | None]:
        """The request document and the picture beside it."""
        request.max_content_length = self.settings.request_bytes_max
        request.max_form_memory_size = self.settings.request_bytes_max
        if (request.content_length or 0) > self.settings.request_bytes_max:
            raise self._too_large(request)
        if request.mimetype == "application/json":
            return _decode(request.get_data(), kind), None
        if request.mimetype == "multipart/form-data":
            picture = request.files.get("image")
            if picture is None:
                raise BadRequest(
                    f"The form has the parts {sorted({*request.files, *request.form})}",
                    valid="A file part named image, and perhaps a part named request",
                    remedy="Name the picture's part image",
                )
            return _decode((request.form.get("request") or "{}").encode(), kind), picture.read()
        if request.mimetype.startswith("image/"):
            return _decode(b"{}", kind), request.get_data()
        raise UnsupportedMediaType(
            f"The body is of type {request.mimetype or '(none)'}",
            valid="application/json, multipart/form-data or image/*",
            remedy="Set Content-Type",
        )

    def _push(self, request: Request) -> Response:
        self.gate.admit_owner(request)
        request.max_content_length = self.settings.request_bytes_max
        if (request.content_length or 0) > self.settings.request_bytes_max:
            raise self._too_large(request)
        if request.mimetype not in ("application/json", LINES):
            raise UnsupportedMediaType(
                f"The body is of type {request.mimetype or '(none)'}",
                valid=f"application/json with one item, or {LINES} with one a line",
                remedy="Set Content-Type",
            )
        body, pusher = request.get_data(), self._open_pusher()
        answer = pusher.push_lines(body) if request.mimetype == LINES else pusher.push_one(_decode(body, PushItem))
        return _json(answer, status=202)

    def _delete(self, request: Request, id: str) -> Response:  # noqa: A002 — the name in the route
        self.gate.admit_owner(request)
        return _json(self._open_pusher().delete(id), status=202)

    def _thumbnail(self, request: Request, name: str) -> Response:
        if self.objects is None or not NAME.match(name):
            raise UnknownItem(f"No frame {name:.64} is here", valid="Names are as answers give them")
        self.gate.admit_reading(request)
        try:
            data = read_frame(self.objects, name)
        except FetchFailed as exc:
            raise UnknownItem(f"No frame {name:.64} is here", valid="Names are as answers give them") from exc
        response = Response(data, mimetype="image/jpeg")
        # Its name is made of its content, so it never is another picture.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    def _open_pusher(self) -> Pusher:
        if self._pusher is None:
            raise KeyRequired("This endpoint takes no items", valid="It answers searches")
        return self._pusher()

    def _too_large(self, request: Request, most: int | None = None) -> RequestTooLarge:
        return RequestTooLarge(
            f"The request has {request.content_length or 'too many'} bytes",
            valid=f"At most {most or self.settings.request_bytes_max}",
            remedy="Send less: of a picture, 1,024 pixels a side are plenty",
        )

    def _facets(self, request: Request) -> Response:
        return _json(self.service.facets(_filters(request.args)))

    def _items(self, request: Request) -> Response:
        limit = request.args.get("limit", "8")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 48:
            raise BadRequest(f"limit is {limit!r}", valid="A whole number from 1 to 48", remedy="Correct it")
        return _json(ItemsAnswer(items=tuple(indexed.item for indexed in self.service.sample(int(limit)))))

    def _item(self, request: Request, id: str) -> Response:  # noqa: A002 — the name in the route
        indexed = self.service.item(id)
        return _json(
            ItemAnswer(
                item=indexed.item,
                indexed_at=indexed.indexed_at,
                width=indexed.width,
                height=indexed.height,
                labels=indexed.labels,
            )
        )

    def _stats(self, request: Request) -> Response:
        return _json(self.stats())

    def stats(self) -> StatsAnswer:
        """What the index holds and how this process is doing."""
        service = self.service
        searcher, model = service.searcher, service.embedder.description
        searcher.refresh()
        return StatsAnswer(
            images=len(searcher),
            generation=searcher.generation,
            model=ModelAnswer(
                name=model.name,
                fingerprint=service.embedder.fingerprint,
                dimension=service.embedder.dimension,
                summary=model.summary,
                licences=model.licences,
            ),
            segments=searcher.segments,
            fresh=searcher.fresh,
            searches=self._searches,
            stages_ms=_percentiles(list(self._stages)),
            capabilities=("explain", "feedback") if self._read_image else ("feedback",),
            audit=self.service.auditor.result(),
            meters=tuple(MeterAnswer(**dataclasses.asdict(reading)) for reading in self.gate.meter.readings()),
            notice=searcher.notice,
        )

    def _health(self, request: Request) -> Response:
        return _json(HealthAnswer(images=len(self.service.searcher), version=__version__))

    def _openapi(self, request: Request) -> Response:
        return Response(msgspec.json.encode(openapi.document()), mimetype="application/json")

    def _with_headers(self, request: Request, response: Response) -> Response:
        headers = response.headers
        origin = request.headers.get("Origin")
        allowed = self.settings.cors_origins
        if origin and ("*" in allowed or origin in allowed):
            headers["Access-Control-Allow-Origin"] = "*" if "*" in allowed else origin
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
            headers["Access-Control-Allow-Headers"] = f"Content-Type, {KEY_HEADER}"
            headers["Access-Control-Max-Age"] = "86400"
            headers["Vary"] = "Origin"
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        return response


def _not_read(request: Request, valid: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"The body is of type {request.mimetype or '(none)'}", valid=valid, remedy="Set Content-Type"
    )


def status_of(exc: VisorError) -> int:
    """The HTTP status of an error: the caller's fault (4xx), or ours for now (503) or for good (500)."""
    if isinstance(exc, RequestError):
        return exc.status
    if isinstance(exc, ImageError):
        return openapi.STATUS_OF_IMAGE_ERRORS
    return 503 if exc.retriable else 500


def _filters(arguments: MultiDict[str, str]) -> Filters:
    """Filters from the query string; a list's values are repeated."""
    known = {*Filters.__struct_fields__, "price_min", "price_max"} - {"price"}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise BadRequest(
            f"Query parameter {unknown[0]!r} is no filter", valid=f"Filters are {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {name: arguments.getlist(name) for name in set(arguments) if not _is_bound(name)}
    price: dict[str, float] = {}
    try:
        for name in filter(_is_bound, set(arguments)):
            (text,) = arguments.getlist(name)
            if name.startswith("price_"):
                price[name.removeprefix("price_")] = float(text)
            else:
                values[name] = text
    except ValueError as exc:
        raise BadRequest(
            f"{name} is {arguments.getlist(name)}", valid="One number for a price, one ISO 8601 date for a date"
        ) from exc
    if price:
        values["price"] = price
    try:
        return msgspec.convert(values, Filters)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"The filters cannot be read: {exc}", valid="/openapi.json describes them") from exc


def _is_bound(name: str) -> bool:
    """Whether a filter is one end of a range, and so has one value."""
    return name.startswith(("price_", "date_"))


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as exc:
        raise BadRequest(
            f"The request document cannot be read: {exc}",
            valid=f"A JSON object as {kind.__name__} in /openapi.json",
            remedy="Correct what the path in the message names",
        ) from exc


def _json(answer: Record, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status=status, mimetype="application/json")


def _problem(exc: VisorError, status: int) -> Response:
    problem = Problem(
        type=f"urn:visor:{exc.code}",
        title=exc.code.replace("_", " ").capitalize(),
        status=status,
        detail=str(exc),
        found=exc.found,
        valid=exc.valid,
        remedy=exc.remedy,
    )
    response = Response(msgspec.json.encode(problem), status=status, mimetype="application/problem+json")
    retry_after_s = getattr(exc, "retry_after_s", None)
    if status in (429, 503):
        response.headers["Retry-After"] = str(round(retry_after_s or 30))
    return response


def _http_problem(request: Request, status: int, found: str) -> Response:
    valid = ", ".join(
        sorted(f"{'/'.join(sorted((r.methods or set()) - {'HEAD'}))} {r.rule}" for r in ROUTES.iter_rules())
    )
    title = {404: "Not found", 405: "Method not allowed", 500: "Internal error"}.get(status, "Bad request")
    problem = Problem(
        type="about:blank",
        title=title,
        status=status,
        detail=f"{request.method} {request.path}: {found}",
        found=found,
        valid=valid if status in (404, 405) else "",
    )
    return Response(msgspec.json.encode(problem), status=status, mimetype="application/problem+json")


def _percentiles(stages: list[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = {name for timing in stages for name in timing}
    by_name = {name: [timing[name] for timing in stages if name in timing] for name in sorted(names)}
    return {
        name: {"p50": round(float(np.percentile(v, 50)), 2), "p99": round(float(np.percentile(v, 99)), 2)}
        for name, v in by_name.items()
    }
