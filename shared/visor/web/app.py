"""The HTTP contract of the search function, as one callable from a Flask request to a Flask response."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from flask import Request, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import RequestEntityTooLarge as FormTooLarge
from werkzeug.routing import Map, RequestRedirect, Rule

from visor import __version__
from visor.errors import BadRequest, FetchFailed, KeyRequired, RequestTooLarge, UnknownItem, VisorError
from visor.image_readers.thumbnails import NAME, read_frame
from visor.ingest.push import Pusher
from visor.schema.items import Item, Record
from visor.schema.push import PushItem
from visor.schema.search import ExplainRequest, FeedbackRequest, SearchRequest
from visor.search.active_index import ActiveIndex
from visor.search.explain import Explainer
from visor.search.service import SearchService
from visor.settings import Settings
from visor.storage.objects import ObjectStore
from visor.web import openapi
from visor.web.access import KEY_HEADER, Gate
from visor.web.body import JSON, let_by, not_read_here, read_document, read_search, receive
from visor.web.filters import filters_of
from visor.web.problems import http_problem, problem
from visor.web.schema import (
    FeedbackAnswer,
    HealthAnswer,
    ItemAnswer,
    ItemsAnswer,
    MeterAnswer,
    ModelAnswer,
    StatsAnswer,
)

LOG = logging.getLogger("visor.web")
SEARCHES_REMEMBERED = 1_000
LINES = "application/x-ndjson"
FEEDBACK_BYTES_MAX = 100_000
"""A vector in base64 is 9 KB."""
SEARCHES = frozenset({"search", "explain", "feedback"})
READS = frozenset({"facets", "items", "item", "stats", "thumbnail"})
WRITES = frozenset({"push", "delete"})
"""What costs a search, what costs less but is asked as often as anybody likes, and what only the owner may."""

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
ENDPOINTS = ", ".join(
    sorted(f"{'/'.join(sorted((rule.methods or set()) - {'HEAD'}))} {rule.rule}" for rule in ROUTES.iter_rules())
)


class SearchApp:
    """Answers HTTP requests with a `SearchService`. Thread-safe; one a process."""

    def __init__(
        self,
        service: SearchService | ActiveIndex,
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
        started = time.perf_counter()
        endpoint = ""
        try:
            if request.method == "OPTIONS":
                response = Response(status=204)
            else:
                endpoint, arguments = ROUTES.bind("").match(request.path, request.method)
                self._admit(endpoint, request)
                response = getattr(self, f"_{endpoint}")(request, **arguments)
        except VisorError as exc:
            response = problem(exc)
        except FormTooLarge:
            response = problem(RequestTooLarge("The form has too many parts", valid="image, and perhaps request"))
        except HTTPException as exc:
            response = self._misdirected(request, exc)
        except Exception:
            LOG.exception("A request to %s failed", request.path)
            response = http_problem(request, 500, "Visor made a mistake; its log says more")
        finally:
            request.close()
        let_by(request)
        self._count(endpoint, response, time.perf_counter() - started)
        return self._with_headers(request, response)

    def _count(self, endpoint: str, response: Response, seconds: float) -> None:
        """Tell the meters. An answer that was found is given although they cannot be written."""
        is_search = endpoint in SEARCHES and response.status_code == 200
        try:
            size = response.content_length or 0
            self.gate.count("search" if is_search else "reading", seconds=seconds, response_bytes=size)
        except VisorError as exc:
            LOG.error("A request was not counted: %s", exc)

    def _admit(self, endpoint: str, request: Request) -> None:
        """Refuse before anything is read of the body. Raises as the gate does."""
        if endpoint in SEARCHES:
            self.gate.admit(request)
        elif endpoint in READS:
            self.gate.admit_reading(request)
        elif endpoint in WRITES:
            self.gate.admit_owner(request)

    def _misdirected(self, request: Request, exc: HTTPException) -> Response:
        """What the routes know nothing of."""
        if isinstance(exc, RequestRedirect):
            return http_problem(request, 404, f"Nothing is at {request.path}; try {exc.new_url}", valid=ENDPOINTS)
        status = exc.code or 500
        found = exc.description or exc.name
        response = http_problem(request, status, found, valid=ENDPOINTS if status in (404, 405) else "")
        if isinstance(exc, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted({*(exc.valid_methods or ()), "OPTIONS"}))
        return response

    def _search(self, request: Request) -> Response:
        body, upload = read_search(request, self._body(request), SearchRequest)
        answer = self.service.search(body, upload)
        self._searches += 1
        self._stages.append(answer.timing_ms)
        response = _json(answer)
        response.call_on_close(self.service.recall_monitor.check)
        return response

    def _explain(self, request: Request) -> Response:
        if self._read_image is None:
            raise BadRequest("This server cannot fetch pictures of items", valid="It answers searches")
        body, upload = read_search(request, self._body(request), ExplainRequest)
        self.service.refresh()
        return _json(Explainer(self.service, self._read_image).explain(body, upload))

    def _feedback(self, request: Request) -> Response:
        if request.mimetype != JSON:
            raise not_read_here(request, JSON)
        self.service.reject(read_document(self._body(request, FEEDBACK_BYTES_MAX), FeedbackRequest))
        return _json(FeedbackAnswer())

    def _push(self, request: Request) -> Response:
        if request.mimetype not in (JSON, LINES):
            raise not_read_here(request, f"{JSON} with one item, or {LINES} with one a line")
        body, pusher = self._body(request), self._open_pusher()
        is_lines = request.mimetype == LINES
        answer = pusher.push_lines(body) if is_lines else pusher.push_one(read_document(body, PushItem))
        return _json(answer, status=202)

    def _delete(self, request: Request, id: str) -> Response:  # noqa: A002 — the name in the route
        return _json(self._open_pusher().delete(id), status=202)

    def _body(self, request: Request, bytes_max: int | None = None) -> bytes:
        most = bytes_max or self.settings.request_bytes_max
        return receive(request, bytes_max=most, within_s=self.settings.request_timeout_s)

    def _thumbnail(self, request: Request, name: str) -> Response:
        unknown = UnknownItem(f"No frame {name:.64} is here", valid="Names are as answers give them")
        if self.objects is None or not NAME.match(name):
            raise unknown
        self.gate.count_object()
        try:
            data = read_frame(self.objects, name)
        except FetchFailed as exc:
            raise unknown from exc
        response = Response(data, mimetype="image/jpeg")
        # Its name is made of its content, so it never is another picture.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    def _open_pusher(self) -> Pusher:
        if self._pusher is None:
            raise KeyRequired("This endpoint takes no items", valid="It answers searches")
        return self._pusher()

    def _facets(self, request: Request) -> Response:
        return _json(self.service.facets(filters_of(request.args)))

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
            audit=self.service.recall_monitor.result(),
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
            headers["Access-Control-Expose-Headers"] = "Retry-After"
            headers["Access-Control-Max-Age"] = "86400"
            headers["Vary"] = "Origin"
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        return response


def _json(answer: Record, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status=status, mimetype="application/json")


def _percentiles(stages: list[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = {name for timing in stages for name in timing}
    by_name = {name: [timing[name] for timing in stages if name in timing] for name in sorted(names)}
    return {
        name: {"p50": round(float(np.percentile(v, 50)), 2), "p99": round(float(np.percentile(v, 99)), 2)}
        for name, v in by_name.items()
    }
