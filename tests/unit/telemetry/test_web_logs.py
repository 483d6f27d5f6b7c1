"""Log lines as Cloud Logging reads them."""

from __future__ import annotations

import json
import logging

import flask
import httpx
import pytest
from tests.unit.ingest.test_pipeline_embed import batches, body, change, origin, stores  # noqa: F401 — fixtures

from visor.errors import FetchFailed
from visor.http.response import status_error
from visor.ingest.embed import BatchEmbedder
from visor.web.cloud_logging import CloudFormatter

TRACE = "105445aa7843bc8bf206b12000100000"


def record(message: str = "Hello", **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("visor.test", logging.WARNING, __file__, 1, message, (), None)
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def line(made: logging.LogRecord, project: str = "my-project") -> dict[str, object]:
    text = CloudFormatter(project).format(made)
    assert "\n" not in text
    document = json.loads(text)
    assert isinstance(document, dict)
    return document


def test_a_line_is_one_json_object_with_what_it_is_about() -> None:
    found = line(record("Two\nlines", batch="b1", items=["i1"], picture=b"\x89PNG"))
    assert (found["severity"], found["message"]) == ("WARNING", "Two\nlines")
    assert (found["batch"], found["items"]) == ("b1", ["i1"])
    assert "picture" not in found


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"{TRACE}/1;o=1", f"projects/my-project/traces/{TRACE}"),
        (TRACE, f"projects/my-project/traces/{TRACE}"),
        ("../../x", None),
        ("", None),
    ],
)
def test_a_line_of_a_request_carries_its_trace(header: str, trace: str | None) -> None:
    with flask.Flask("test").test_request_context(headers={"X-Cloud-Trace-Context": header}):
        assert line(record()).get("logging.googleapis.com/trace") == trace
        assert "logging.googleapis.com/trace" not in line(record(), project="")


@pytest.mark.parametrize(
    "message",
    [
        "a.example answered 403 for '/img/1.jpg?X-Amz-Signature=SECRET&X-Amz-Expires=60'",
        "https://a.example/1.jpg?sig=SECRET cannot be read",
        "gs://bucket/1.jpg?GoogleAccessId=a&Signature=SECRET%3D: gone",
        "Item x: <http://a.example/?SECRET>",
    ],
)
def test_no_line_has_what_opens_an_address(message: str) -> None:
    found = str(line(record(message))["message"])
    assert "SECRET" not in found
    assert "?" in found


def test_a_failure_names_the_path_and_not_what_opens_it() -> None:
    asked = httpx.Request("GET", "https://a.example/img/1.jpg?X-Amz-Signature=SECRET")
    error = status_error(httpx.Response(403, request=asked))
    assert "/img/1.jpg" in str(error)
    assert "SECRET" not in str(error)


def test_outside_of_a_request_there_is_no_trace() -> None:
    assert "logging.googleapis.com/trace" not in line(record())


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        import sys

        made = record()
        made.exc_info = sys.exc_info()
    assert "ValueError: broken" in str(line(made)["message"])


def test_embed_tells_batches_and_items_and_never_a_picture(
    batches: BatchEmbedder,  # noqa: F811
    origin,  # type: ignore[no-untyped-def]  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    origin.errors = {"1": FetchFailed("The origin answers 404")}
    with caplog.at_level(logging.INFO, "visor.embed"):
        batches.embed(body(change("0"), change("1")), attempt=2)
    lines = [line(made) for made in caplog.records if made.name == "visor.embed"]
    failed, done = lines
    assert failed["items"] == [change("1").item.id]
    assert "404" in str(failed["message"])
    assert failed["severity"] == "WARNING"
    assert set(done["items"]) == {change("0").item.id, change("1").item.id}  # type: ignore[arg-type]
    assert done["batch"] == failed["batch"]
    assert "attempt 2: 1 embedded" in str(done["message"])
    assert all(len(json.dumps(one)) < 2_000 for one in lines)
