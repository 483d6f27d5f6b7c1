"""What does not fit a record, in a request, an environment or an item, is said in words: which value, what is valid."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from werkzeug.datastructures import MultiDict

import visor
from visor.cli.main import main
from visor.deploy.plan import runs_a_day
from visor.errors import VisorError
from visor.library.index import _push_item
from visor.owner_file import OwnerFile
from visor.schema.search import Filters, PriceRange, SearchRequest
from visor.search.request import given_path, request_of
from visor.settings import Settings
from visor.sources.config import SourcesFile
from visor.web.body import read_document
from visor.web.endpoints import parse_filters
from visor.web.site import Server

PRICED = Filters(price=PriceRange(max="a"))  # type: ignore[arg-type]
JARGON = re.compile(r"`|\$\.|Expected|expected|\bint\b|None")


def body(document: Any) -> SearchRequest:
    return read_document(msgspec.json.encode(document), SearchRequest)


@pytest.mark.parametrize(
    ("fails", "found", "valid"),
    [
        (lambda: body({"k": 0}), "k of the request is 0", "a whole number (at least 1, at most 200)"),
        (lambda: body({"k": 2000}), "k of the request is 2000", "at most 200"),
        (lambda: body({"k": "drei"}), 'k of the request is "drei"', "a whole number"),
        (lambda: body({"textt": "x"}), "textt is not a key of the request", "image, url"),
        (lambda: body({"sort": "preis"}), 'sort of the request is "preis"', "'likeness', 'price_up'"),
        (lambda: body({"filters": {"farbe": ["rot"]}}), "filters.farbe is not a key", "collection, source"),
        (lambda: body({"filters": {"price": {"min": "a"}}}), 'filters.price.min of the request is "a"', "a number"),
        (lambda: body({"examples": [{"weight": 3}]}), "examples[0].weight of the request is 3", "at most 1"),
        (lambda: read_document(b'4/\xb33"M', SearchRequest), "The request is a whole number", "The keys image"),
        (lambda: read_document(b'[{"k": 1}]', SearchRequest), 'The request is [{"k":1}]', "The keys"),
        (lambda: read_document(b'{"k": "\xff"}', SearchRequest), "k of the request is a text", "a whole number"),
        (lambda: read_document(b'{"k": 1', SearchRequest), "The request is not JSON", "A JSON object"),
        (lambda: read_document(b'{"text": "\xff"}', SearchRequest), "JSON: a text in it is not UTF-8", "A JSON object"),
        (lambda: parse_filters(MultiDict({"price_min": "x"})), "price_min is 'x'", "One number"),
        (lambda: parse_filters(MultiDict({"price_max": "nan"})), "price_max is 'nan'", "One number"),
        (lambda: parse_filters(MultiDict({"attributes": "[" * 3_000})), "attributes is '[[", "one JSON object"),
        (lambda: OwnerFile.text_of(Path("/")), "/ cannot be read: Is a directory", "A text in UTF-8"),
        (lambda: SourcesFile("").entry("a b"), "visor.toml has no source 'a b'", ""),
        (lambda: Server(Mock(), host="a host"), "Port 0 of a host cannot be used", "An address of this"),
        (lambda: given_path("a\0b"), "is not a path", "The path of a file"),
        (lambda: given_path("a" * 300), " cannot be read: File name too long", "The path of a file"),
        (lambda: given_path("~nobody-here/a"), "'~nobody-here/a' is not a path", "The path of a file"),
        (lambda: visor.open("home", name="../up"), "'../up' cannot name an index", "without slashes"),
        (lambda: visor.connect("http://[::1"), "'http://[::1' is not the URL of a server", "e.g. https://"),
        (lambda: visor.connect("http://a", key="schlüssel"), "The key has characters", "Printable ASCII"),
        (lambda: visor.connect("http://"), "'http://' is not the URL of a server: it names no host", "e.g. https://"),
        (lambda: visor.connect(5), "5 is not the URL of a server", "e.g. https://"),  # type: ignore[arg-type]
        (lambda: visor.connect("http://a", key=5), "The key is 5", "Printable ASCII"),  # type: ignore[arg-type]
        (lambda: visor.connect("http://a", timeout_s=math.nan), "timeout_s is nan", "A number of seconds above 0"),
        (lambda: visor.connect("http://a", timeout_s=-1), "timeout_s is -1", "A number of seconds above 0"),
        (lambda: visor.connect("http://a", key="key\n"), "The key has characters", "Printable ASCII"),
        (lambda: runs_a_day("every 5 minutes"), "'every 5 minutes' is not a cron line", "Five fields"),
        (lambda: runs_a_day("*/0 * * * *"), "'*/0 * * * *' is not a cron line", "Five fields"),
        (lambda: request_of("0" * 32, {"k": 0}), "k of the search is 0", "at least 1"),
        (
            lambda: _push_item({"key": "7", "price": "CHF 12"}),
            "The item '7' cannot be added: price is \"CHF 12\"",
            "a number",
        ),
        (lambda: _push_item({"key": "7", "currency": "Euro"}), 'currency is "Euro"', "that matches"),
        (lambda: _push_item("key"), "'key' of type str cannot be added", "Mappings"),
        (lambda: request_of("0" * 32, {"filters": PRICED}), 'filters.price.max of the search is "a"', "a number"),
        (lambda: Settings.read({"VISOR_THREADS": "abc"}), 'VISOR_THREADS is "abc"', "a whole number"),
        (lambda: Settings.read({"VISOR_BACKEND": "aws"}), 'VISOR_BACKEND is "aws"', "one of 'local', 'gcp'"),
        (lambda: Settings.read({"VISOR_DEVICE": "vielleicht"}), 'VISOR_DEVICE is "vielleicht"', "true or false"),
    ],
)
def test_what_is_wrong_is_said_in_words(fails: Any, found: str, valid: str) -> None:
    with pytest.raises(VisorError) as failed:
        fails()
    error = failed.value
    assert (found in error.found, valid in error.valid) == (True, True), (error.found, error.valid)
    assert error.remedy
    assert not JARGON.search(error.found + error.remedy)


@pytest.mark.parametrize("command", [["serve", "--log", "{}/log.txt"], ["source", "new", "shop_of_mine"]])
def test_a_file_that_cannot_be_written_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder should be")
    (tmp_path / "visor-source-shop-of-mine").write_text("the same")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISOR_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as ended:
        main([word.format(taken) for word in command])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n"), said.startswith("visor: ")) == (1, 1, True), said
