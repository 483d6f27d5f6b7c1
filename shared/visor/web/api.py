"""The HTTP contract of the search function, as one callable from a Flask request to a Flask response."""

from __future__ import annotations

import gzip
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import numpy as np
from flask import Request, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestedRangeNotSatisfiable
from werkzeug.exceptions import RequestEntityTooLarge as FormTooLarge
from werkzeug.routing import RequestRedirect
from werkzeug.utils import send_file
from werkzeug.wrappers import Response as WerkzeugResponse

from visor import __version__
from visor.errors import BadRequest, FetchFailed, Forbidden, KeyRequired, RequestTooLarge, UnknownItem, VisorError
from visor.free_tier.quota import request_usage
from visor.image_readers.thumbnails import NAME, get_thumbnail
from visor.ingest.push import Pusher
from visor.models.device import DeviceModel, device_model
from visor.schema.items import Item, Record
from visor.schema.push import PushItem
from visor.schema.search import (
    TEXT_MAX,
    CompareRequest,
    ExplainRequest,
    FeedbackRequest,
    SearchAnswer,
    SearchesRequest,
    SearchRequest,
)
from visor.search.compare import Comparer
from visor.search.explain import Explainer
from visor.search.service import SearchService
from visor.settings import Settings
from visor.storage.objects import ObjectStore
from visor.telemetry.metrics import CONTENT_TYPE, Metrics
from visor.telemetry.traces import span
from visor.web import openapi
from visor.web.access import KEY_HEADER, AccessPolicy
from visor.web.body import drain, read_document, read_request_body, read_search, unsupported_type
from visor.web.endpoints import (
    ALL_PATHS,
    BYTES,
    ITEMS_DEFAULT,
    ITEMS_MAX,
    JPEG,
    JSON,
    LINES,
    ROUTES,
    TEXT,
    Endpoint,
    check_parameters,
    parse_filters,
)
from visor.web.metrics import Collector, index_families, meter_families, metrics_text
from visor.web.problems import http_problem, problem, problem_of
from visor.web.rate_limit import Slots
from visor.web.schema import (
    DeviceOffer,
    FeedbackAnswer,
    HealthAnswer,
    ItemAnswer,
    ItemsAnswer,
    MeterAnswer,
    ModelAnswer,
    SearchesAnswer,
    SearchOutcome,
    StatsAnswer,
    SuggestAnswer,
)

LOG = logging.getLogger("visor.web")
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
SEARCHES_REMEMBERED = 1_000
SUGGESTIONS = 8
FEEDBACK_BYTES_MAX = 100_000
"""A vector in base64 is 9 KB."""
YEAR_S = 31_536_000
PACKED_FROM = 1_000
"""Bytes from which on JSON is compressed: an answer of 12 matches has 19 KB, or 9 KB after 0.2 ms."""


class HttpApi:
    """Answers HTTP requests with a `SearchService`. Thread-safe; one per process."""

    def __init__(
        self,
        service: Callable[[], SearchService],
        settings: Settings,
        access: AccessPolicy,
        *,
        pusher: Callable[[], Pusher] | None = None,
        objects: ObjectStore | None = None,
        read_image: Callable[[Item], bytes] | None = None,
        metrics: Metrics | None = None,
        pipeline: Collector = tuple,
    ) -> None:
        """
        Args:
            service: Returns the service of the current index. Called once per request, since the index may change.
            pusher: Makes the pusher when the first pushed item arrives; None: pushed items are refused.
            objects: Where video frames are stored, for their thumbnails.
            read_image: Returns the bytes of an item's image, to explain matches; None: they are not explained.
            metrics: The counts of this process, which `GET /metrics` reports.
            pipeline: Returns the metrics of queue and sources for it.
        """
        self.service, self.settings, self.access, self.objects = service, settings, access, objects
        self._pusher, self._read_image = pusher, read_image
        self.metrics, self._pipeline = metrics or Metrics(), pipeline
        self._metric_slots = Slots("search by metric", at_once=1, waiting=2, wait_s=20)
        self._fetches = Slots("fetch of a picture", at_once=3, waiting=3, wait_s=settings.fetch_timeout_s)
        self._stages: deque[dict[str, float]] = deque(maxlen=SEARCHES_REMEMBERED)
        self._searched = 0

    def __call__(self, request: Request) -> WerkzeugResponse:
        """Answer one request. Never raises: an error becomes an RFC 9457 problem document."""
        method = request.method if request.method in METHODS else "_OTHER"
        attributes = {"http.request.method": method}
        with span(method, kind="server", parent=request.headers, **attributes) as traced:
            endpoint, response = self._answered(request)
            traced.name(f"{method} {endpoint.path}" if endpoint else method)
            traced.set(**{"http.route": endpoint.path if endpoint else None})
            traced.set(**{"http.response.status_code": response.status_code})
            if response.status_code >= 500:
                traced.fail(str(response.status_code))
        return response

    def _answered(self, request: Request) -> tuple[Endpoint | None, WerkzeugResponse]:
        started = time.perf_counter()
        endpoint: Endpoint | None = None
        response: WerkzeugResponse
        owner, used = False, Counter[str]()
        with request_usage(used):
            try:
                self.access.check_address(request)
                if request.method == "OPTIONS":
                    response = Response(status=204)
                else:
                    endpoint, arguments = ROUTES.bind("").match(request.path, request.method)
                    owner = self.access.admit(endpoint.access, request)
                    if request.args:
                        check_parameters(endpoint, request.args)
                    response = getattr(self, f"_{endpoint.name}")(request, owner, **arguments)
            except VisorError as exc:
                response = problem(exc)
                if endpoint is not None and endpoint.name in ("search", "searches"):
                    self.metrics.count("visor_searches_total", outcome=exc.code)
            except FormTooLarge:
                found, valid = "The form has too many parts", "image, and perhaps request"
                response = problem(RequestTooLarge(found, valid=valid, remedy="Leave the others out"))
            except HTTPException as exc:
                response = self._misdirected(request, exc)
            except Exception:
                LOG.exception("A request to %s failed", request.path)
                response = http_problem(request, 500, "Visor has a bug here; its log says more")
            finally:
                request.close()
        drain(request)
        _pack(request, response)
        searches, pictures = max(1, used.pop("searches", 1)), used.pop("pictures", 0)
        seconds, is_head = time.perf_counter() - started, request.method == "HEAD"
        self._count(endpoint, response, seconds, used, searches, is_head=is_head)
        if endpoint is not None:
            self.access.charge(endpoint.access, request, owner, used, admitted=searches, pictures=pictures)
        return endpoint, self._with_headers(request, response)

    def _count(
        self,
        endpoint: Endpoint | None,
        response: WerkzeugResponse,
        seconds: float,
        used: Mapping[str, float],
        searches: int,
        *,
        is_head: bool,
    ) -> None:
        """Meter the request. If the meters cannot be written, the answer is sent all the same."""
        is_search = endpoint is not None and endpoint.access == "search" and response.status_code == 200
        name = endpoint.name if endpoint is not None else "none"
        self.metrics.count("visor_http_requests_total", endpoint=name, status=str(response.status_code))
        self.metrics.observe("visor_http_request_duration_seconds", seconds, endpoint=name)
        try:
            size = 0 if is_head else response.content_length or 0
            kind: Literal["search", "reading"] = "search" if is_search else "reading"
            n = searches if is_search else 1
            self.access.count(kind, n, seconds=seconds, response_bytes=size, used=used)
        except VisorError as exc:
            LOG.error("A request was not counted: %s", exc)

    def _misdirected(self, request: Request, exc: HTTPException) -> Response:
        """The response for a path or method that is not in the table."""
        if isinstance(exc, RequestRedirect):
            found, remedy = f"{request.path} does not exist", f"Try {urlsplit(exc.new_url).path}"
            return http_problem(request, 404, found, valid=ALL_PATHS, remedy=remedy)
        status = exc.code or 500
        found = "Nothing is there" if status == 404 else exc.description or exc.name
        response = http_problem(request, status, found, valid=ALL_PATHS if status in (404, 405) else "")
        if isinstance(exc, RequestedRangeNotSatisfiable):
            response.headers["Content-Range"] = f"bytes */{exc.length}"
        if isinstance(exc, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted({*(exc.valid_methods or ()), "OPTIONS"}))
        return response

    def _search(self, request: Request, owner: bool) -> Response:
        body, upload = read_search(request, self._body(request), SearchRequest)
        service = self.service()
        response = _json(self._answer(service, request, owner, body, upload))
        response.call_on_close(service.recall_monitor.check)
        return response

    def _searches(self, request: Request, owner: bool) -> Response:
        if request.mimetype != JSON:
            raise unsupported_type(request, JSON)
        body, service = read_document(self._body(request), SearchesRequest), self.service()

        def outcome(number: int, search: SearchRequest) -> SearchOutcome:
            try:
                if number:
                    self.access.admit("search", request)
                return SearchOutcome(answer=self._answer(service, request, owner, search, None))
            except VisorError as exc:
                self.metrics.count("visor_searches_total", outcome=exc.code)
                return SearchOutcome(problem=problem_of(exc))

        return _json(SearchesAnswer(outcomes=tuple(outcome(*one) for one in enumerate(body.searches))))

    def _answer(
        self, service: SearchService, request: Request, owner: bool, body: SearchRequest, upload: bytes | None
    ) -> SearchAnswer:
        if body.metric is not None:
            self.access.check_metric(owner)
        with self._slot(body):
            answer = service.search(body, upload, client=None if owner else self.access.client(request))
        self._searched += 1
        self._stages.append(answer.timing_ms)
        is_unsafe = answer.safety is not None and answer.safety.unsafe
        outcome = "unsafe" if is_unsafe else "doubtful" if answer.no_confident_match else "confident"
        self.metrics.count("visor_searches_total", outcome=outcome)
        for stage, taken_ms in answer.timing_ms.items():
            if stage == "total":
                self.metrics.observe("visor_search_duration_seconds", taken_ms / 1000)
            else:
                self.metrics.observe("visor_search_stage_duration_seconds", taken_ms / 1000, stage=stage)
        return answer

    def _explain(self, request: Request, owner: bool) -> Response:
        if self._read_image is None:
            found, remedy = "This server cannot fetch images of items", "Ask one whose /v1/stats offers explain"
            raise BadRequest(found, valid="Searches", remedy=remedy)
        body, upload = read_search(request, self._body(request), ExplainRequest)
        service = self.service()
        service.refresh()
        with self._fetches.slot():
            return _json(Explainer(service, self._read_image).explain(body, upload))

    def _compare(self, request: Request, owner: bool) -> Response:
        if request.mimetype != JSON:
            raise unsupported_type(request, JSON)
        body, service = read_document(self._body(request), CompareRequest), self.service()
        with self._fetches.slot() if body.first.image is None or body.second.image is None else nullcontext():
            return _json(Comparer(service, self._read_image).compare(body))

    def _slot(self, body: SearchRequest) -> AbstractContextManager[None]:
        """What an expensive search waits for, so that such searches do not occupy all threads."""
        fetches = body.url is not None or any(one.url is not None for one in body.examples)
        slots = self._metric_slots if body.metric is not None else self._fetches if fetches else None
        return slots.slot() if slots is not None else nullcontext()

    def _feedback(self, request: Request, owner: bool) -> Response:
        if request.mimetype != JSON:
            raise unsupported_type(request, JSON)
        said = read_document(self._body(request, FEEDBACK_BYTES_MAX), FeedbackRequest)
        self.service().keep_feedback(said, by_owner=owner)
        return _json(FeedbackAnswer())

    def _push(self, request: Request, owner: bool) -> Response:
        if request.mimetype not in (JSON, LINES):
            raise unsupported_type(request, f"{JSON} with one item, or {LINES} with one a line")
        body, pusher = self._body(request), self._open_pusher()
        is_lines = request.mimetype == LINES
        answer = pusher.push_lines(body) if is_lines else pusher.push_one(read_document(body, PushItem))
        return _json(answer, status=202)

    def _delete(self, request: Request, owner: bool, id: str) -> Response:  # noqa: A002 — the name in the route
        return _json(self._open_pusher().delete(id), status=202)

    def _body(self, request: Request, bytes_max: int | None = None) -> bytes:
        most = bytes_max or self.settings.request_bytes_max
        return read_request_body(request, bytes_max=most, within_s=self.settings.request_timeout_s)

    def _thumbnail(self, request: Request, owner: bool, name: str) -> Response:
        found, remedy = f"There is no frame {name:.64}", "Search again: its video may have been deleted"
        unknown = UnknownItem(found, valid="Names as answers give them", remedy=remedy)
        if self.objects is None or not NAME.match(name):
            raise unknown
        try:
            data = get_thumbnail(self.objects, name)
        except FetchFailed as exc:
            raise unknown from exc
        response = Response(data, mimetype=JPEG)
        # The name is derived from the content, so it is always the same image.
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    def _open_pusher(self) -> Pusher:
        if self._pusher is None:
            remedy = "Push to the address where the index is filled"
            raise KeyRequired("This endpoint does not accept items", valid="Searches", remedy=remedy)
        return self._pusher()

    def _facets(self, request: Request, owner: bool) -> Response:
        filters, service = parse_filters(request.args), self.service()
        text = _text(request) if "text" in request.args else None
        if text is not None:
            service.queries.check(SearchRequest(text=text), None, words_alone=True)
        return _json(service.facets(filters, text))

    def _suggest(self, request: Request, owner: bool) -> Response:
        return _json(SuggestAnswer(words=tuple(self.service().complete(_text(request), SUGGESTIONS))))

    def _items(self, request: Request, owner: bool) -> Response:
        limit = _single(request, "limit", str(ITEMS_DEFAULT))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= ITEMS_MAX):
            found, valid = f"limit is {limit!r:.50}", f"A whole number from 1 to {ITEMS_MAX}"
            raise BadRequest(found, valid=valid, remedy="Correct it")
        return _json(ItemsAnswer(items=tuple(indexed.item for indexed in self.service().sample(int(limit)))))

    def _item(self, request: Request, owner: bool, id: str) -> Response:  # noqa: A002 — the name in the route
        return _json(msgspec.convert(self.service().item(id), ItemAnswer, from_attributes=True))

    def _model(self, request: Request, owner: bool) -> WerkzeugResponse:
        self.service().refresh()
        model = self._device_model()
        if request.method != "HEAD":
            self.access.admit_model(request, owner, model.size_bytes)
        response = _json(model)
        response.headers["Cache-Control"] = "no-cache"
        response.add_etag(weak=True)
        return response.make_conditional(request)

    def _device_model(self) -> DeviceModel:
        service = self.service()
        return device_model(
            service.embedder.manifest,
            allowed=self.settings.device,
            closer=service.confidence.across(service.searcher.manifest) is not None,
            url=lambda file: f"model/{file.sha256}",
        )

    def _model_file(self, request: Request, owner: bool, sha256: str) -> WerkzeugResponse:
        model = self._device_model()
        if not model.allowed:
            raise Forbidden(model.reason, valid="image, url, vector, item or handle", remedy="Send the picture")
        if sha256 not in {file.sha256 for file in model.files}:
            found, remedy = f"There is no file {sha256:.64}", "Request GET /v1/model again: the model may have changed"
            raise UnknownItem(found, valid="Those that GET /v1/model names", remedy=remedy)
        path = self.service().embedder.path_of(sha256)
        response = send_file(path, request.environ, BYTES, etag=sha256, max_age=YEAR_S)
        sent = 0 if request.method == "HEAD" else response.content_length or 0
        with ExitStack() as opened:
            opened.callback(response.close)
            self.access.admit_download(request, owner, sent, model.size_bytes)
            if sent:
                opened.pop_all()
        # The name is derived from the content, so it is always the same file.
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    def _stats(self, request: Request, owner: bool) -> Response:
        return _json(self.stats())

    def stats(self) -> StatsAnswer:
        """The contents of the index and the state of this process."""
        service = self.service()
        searcher, model = service.searcher, service.embedder.description
        searcher.refresh()
        device = self._device_model()
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
            searches=self._searched,
            stages_ms=_percentiles(list(self._stages)),
            capabilities=("explain", "feedback") if self._read_image else ("feedback",),
            device=DeviceOffer(
                allowed=device.allowed,
                by_default=device.allowed and self.access.offers_model(device.size_bytes),
                size_bytes=device.size_bytes,
                closer=device.closer,
            ),
            audit=service.recall_monitor.result(),
            meters=tuple(
                msgspec.convert(reading, MeterAnswer, from_attributes=True) for reading in self.access.meter.readings()
            ),
            budget=self.access.meter.settings.budget,
            spent=self.access.meter.spent() if self.access.meter.settings.budget else 0.0,
            learned_from=service.learned_from,
            notice=searcher.notice,
        )

    def _metrics(self, request: Request, owner: bool) -> Response:
        return Response(self.metrics_text(), content_type=CONTENT_TYPE)

    def metrics_text(self) -> str:
        """The answer of `GET /metrics`, and of the private port."""
        collectors: dict[str, Collector] = {
            "index": lambda: index_families(self.service()),
            "meters": lambda: meter_families(self.access.meter),
            "pipeline": self._pipeline,
        }
        return metrics_text(self.metrics, collectors)

    def _health(self, request: Request, owner: bool) -> Response:
        service = self.service()
        service.refresh()
        return _json(HealthAnswer(images=len(service.searcher), version=__version__))

    def _openapi(self, request: Request, owner: bool) -> Response:
        return Response(msgspec.json.encode(openapi.document()), mimetype="application/json")

    def _with_headers(self, request: Request, response: WerkzeugResponse) -> WerkzeugResponse:
        headers = response.headers
        origin = request.headers.get("Origin")
        allowed = self.settings.cors_origins
        if origin and ("*" in allowed or origin in allowed):
            headers["Access-Control-Allow-Origin"] = "*" if "*" in allowed else origin
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
            headers["Access-Control-Allow-Headers"] = f"Content-Type, Range, {KEY_HEADER}"
            headers["Access-Control-Expose-Headers"] = "Retry-After, ETag, Accept-Ranges, Content-Range"
            headers["Access-Control-Max-Age"] = "86400"
            response.vary.add("Origin")
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        return response


def _pack(request: Request, response: WerkzeugResponse) -> None:
    """Compress a response if that pays off and its reader accepts it: sent bytes are free up to an allowance."""
    if not (response.is_json or response.mimetype == TEXT):
        return
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] > 0 and (response.content_length or 0) >= PACKED_FROM:
        response.set_data(gzip.compress(response.get_data(), compresslevel=1, mtime=0))
        response.headers["Content-Encoding"] = "gzip"


def _single(request: Request, name: str, default: str) -> str:
    """A parameter of a query string. Raises BadRequest if it is given more than once."""
    given = request.args.getlist(name) or [default]
    if len(given) > 1:
        raise BadRequest(f"{name} is given {len(given)} times", valid=f"One {name}", remedy="Leave the others out")
    return given[0]


def _text(request: Request) -> str:
    """The words of a query string. Raises BadRequest if there are too many, or several texts."""
    text = _single(request, "text", "")
    if len(text) > TEXT_MAX:
        raise BadRequest(f"text has {len(text)} characters", valid=f"At most {TEXT_MAX}", remedy="Shorten it")
    return text


def _json(answer: Record, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status=status, mimetype="application/json")


def _percentiles(stages: list[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = {name for timing in stages for name in timing}
    by_name = {name: [timing[name] for timing in stages if name in timing] for name in sorted(names)}
    return {
        name: {"p50": round(float(np.percentile(v, 50)), 2), "p99": round(float(np.percentile(v, 99)), 2)}
        for name, v in by_name.items()
    }
