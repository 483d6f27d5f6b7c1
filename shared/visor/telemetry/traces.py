"""Traces: where the time of a crawl, an embed or a search went, sent by OpenTelemetry's SDK.

OpenTelemetry's own environment variables switch it on: an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`) or an exporter
(`OTEL_TRACES_EXPORTER`). Without them nothing of it is imported, and a span costs one comparison. As its specification
requires, an invalid variable causes a warning and never an error.

A span holds names, counts and codes. It never holds a picture, a text that was searched for, a key, or a URL.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import entry_points
from typing import Any, Literal

from visor import __version__

LOG = logging.getLogger("visor.traces")
EXPORTERS = "opentelemetry_traces_exporter"
"""Entry-point group of the packages with exporters."""
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
ATTRIBUTE_BYTES_MAX = 1024
"""Limit of one attribute of a message in Pub/Sub."""
FLUSH_MS = 3_000

Value = str | bool | int | float
_tracer: Any = None
_provider: Any = None
_flushes = False
"""Whether to send spans before a function's work is over, since it has no CPU between requests. HTTP callers do not
wait for this: their spans are sent during later requests, or when the instance ends."""


class Span:
    """The interface of a span. This class, for a process without tracing, does nothing."""

    def set(self, **attributes: Value | None) -> None:
        """Set attributes `visor.NAME`; those that are None are left out."""

    def name(self, name: str) -> None:
        """Rename it."""

    def link(self, traceparents: Iterable[str]) -> None:
        """Link other traces that led to it, by their `traceparent`; empty ones are left out."""

    def fail(self, why: str) -> None:
        """Mark it as failed, by an error's code."""


_NO_SPAN: AbstractContextManager[Span] = nullcontext(Span())


class _OpenSpan(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, **attributes: Value | None) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(name if "." in name else f"visor.{name}", value)

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def link(self, traceparents: Iterable[str]) -> None:
        from opentelemetry import propagate, trace

        for one in filter(None, traceparents):
            self._span.add_link(trace.get_current_span(propagate.extract({"traceparent": one})).get_span_context())

    def fail(self, why: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", why)
        self._span.set_status(StatusCode.ERROR)


def start(environ: Mapping[str, str] = os.environ) -> bool:
    """Begin to trace if the environment requests it; returns whether it traces. Only a process's first start counts."""
    global _tracer, _provider, _flushes
    names = _exporter_names(environ)
    if not names or _tracer is not None:
        return _tracer is not None
    try:
        from opentelemetry import propagate  # noqa: F401 - reads OTEL_PROPAGATORS
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporters = [_exporter(name) for name in names]
        default = Resource({"service.name": environ.get("K_SERVICE") or "visor", "service.version": __version__})
        _provider = TracerProvider(resource=Resource.create().merge(default).merge(OTELResourceDetector().detect()))
        for exporter in exporters:
            _provider.add_span_processor(BatchSpanProcessor(exporter))
    except (ImportError, LookupError, ValueError) as exc:
        LOG.warning("No traces are sent: %s. Visor sends them with pip install 'visor-search[telemetry]'", exc)
        return False
    _flushes = "K_SERVICE" in environ
    _tracer = _provider.get_tracer("visor", __version__)
    return True


def stop() -> None:
    """Send all ended spans, and stop tracing. The end of the process does this, too."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def _exporter_names(environ: Mapping[str, str]) -> list[str]:
    """Entry points of the exporters that the environment requests; empty: nothing is traced."""

    def value(name: str) -> str:
        return environ.get(name, "").strip()

    asked = value("OTEL_TRACES_EXPORTER")
    has_endpoint = value("OTEL_EXPORTER_OTLP_ENDPOINT") or value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if value("OTEL_SDK_DISABLED").lower() == "true" or not (asked or has_endpoint):
        return []
    protocol = value("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or value("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    names = [name.strip().lower() for name in (asked or "otlp").split(",") if name.strip()]
    return [PROTOCOLS.get(protocol, f"otlp {protocol}") if name == "otlp" else name for name in names if name != "none"]


def _exporter(name: str) -> Any:
    found = next(iter(entry_points(group=EXPORTERS, name=name)), None)
    if found is None:
        there = ", ".join(sorted(entry_points(group=EXPORTERS).names)) or "none"
        raise LookupError(f"there is no exporter {name!r} here (installed: {there})")
    return found.load()()


def span(
    name: str,
    *,
    kind: Literal["internal", "server", "producer", "consumer"] = "internal",
    parent: object = None,
    **attributes: Value | None,
) -> AbstractContextManager[Span]:
    """A span of the block, below that of the enclosing block. An error that leaves the block marks it with its code.

    Args:
        parent: A mapping with the context of the parent span: headers of a request, attributes of a message. If it has
            no context, the span begins a trace. None: the parent is the enclosing span.
        attributes: As in `Span.set`.
    """
    return _NO_SPAN if _tracer is None else _span(name, kind, parent, attributes)


@contextmanager
def _span(name: str, kind: str, parent: object, attributes: Mapping[str, Value | None]) -> Iterator[Span]:
    from opentelemetry import propagate, trace

    context = None if parent is None else propagate.extract(parent)
    is_outermost = parent is not None or not trace.get_current_span().get_span_context().is_valid
    try:
        with _tracer.start_as_current_span(
            name,
            context=context,
            kind=trace.SpanKind[kind.upper()],
            record_exception=False,
            set_status_on_exception=False,
        ) as opened:
            found = _OpenSpan(opened)
            found.set(**attributes)
            try:
                yield found
            except Exception as exc:
                found.fail(str(getattr(exc, "code", None) or type(exc).__name__))
                raise
    finally:
        if is_outermost and _flushes and kind != "server":
            _provider.force_flush(FLUSH_MS)


def current() -> Span:
    """The span of the enclosing block."""
    if _tracer is None:
        return Span()
    from opentelemetry import trace

    return _OpenSpan(trace.get_current_span())


def carrier() -> dict[str, str]:
    """Attributes of a message with which its receiver continues this trace (W3C `traceparent`); empty without
    tracing."""
    if _tracer is None:
        return {}
    from opentelemetry import propagate

    found: dict[str, str] = {}
    propagate.inject(found)
    return {name: value for name, value in found.items() if len(value.encode()) <= ATTRIBUTE_BYTES_MAX}
