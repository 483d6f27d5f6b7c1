"""What deployed functions write to their logs: JSON lines with what they are about, and nothing that is secret."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import httpx
import msgspec
import pytest
from tests.cloud.support.origin import Origin
from tests.cloud.test_delivery import change
from tests.unit.ingest.test_pipeline_embed import drawing

from visor.schema.items import Batch, item_id
from visor.settings import Settings
from visor_emulators.demo import running_function

KEY = "a-key-that-nobody-may-read-3141592653"
TRACE = "105445aa7843bc8bf206b12000100000"


def lines_of(written: str) -> list[dict[str, Any]]:
    """The JSON lines; the others are gunicorn's and LiteRT's own, of their start and end."""
    return [json.loads(line) for line in written.splitlines() if line.startswith("{")]


def test_functions_log_what_lines_are_about_and_no_secret(
    cloud_settings: Settings,
    built_settings: Settings,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    origin = Origin()
    origin.behaviour = {"missing": "404", "busy": "busy"}
    settings = msgspec.structs.replace(
        cloud_settings, home=built_settings.home, allow_hosts=(origin.host,), owner_key=KEY, key_required=True
    )
    headers = {"X-Cloud-Trace-Context": f"{TRACE}/1;o=1", "X-Visor-Key": KEY}
    batch = Batch.of("s", "run-7", tuple(change(origin, key) for key in ("good", "missing", "busy")))
    picture = drawing(1)
    with running_function("embed", settings) as embed, running_function("search", settings) as search:
        for data, status in ((msgspec.json.encode(batch), 500), (b"no batch " + picture, 200)):
            message = {"messageId": "0", "data": base64.b64encode(data).decode()}
            envelope = {"subscription": "projects/p/subscriptions/s", "message": message}
            assert httpx.post(embed, json=envelope, headers=headers, timeout=60).status_code == status
        for body, worked in ((picture, True), (b"no picture" + os.urandom(50), False), (b"", False)):
            kind = {"Content-Type": "image/png"}
            answer = httpx.post(f"{search}/v1/search", content=body, headers=headers | kind, timeout=60)
            assert answer.is_success if worked else answer.is_client_error, answer.text
        assert httpx.post(f"{search}/v1/search", content=picture, timeout=60).status_code == 401
    origin.close()
    captured = capfd.readouterr()
    written = captured.out + captured.err
    lines = lines_of(written)
    assert lines
    assert all(line["severity"] in ("INFO", "WARNING", "ERROR") and line["message"] for line in lines)

    def about(key: str) -> list[dict[str, Any]]:
        return [line for line in lines if line.get("items") == [item_id("s", key)]]

    (whole,) = [line for line in lines if line["message"].startswith(f"Batch {batch.id}")]
    assert (whole["batch"], whole["run"], whole["source"]) == (batch.id, "run-7", "s")
    assert len(whole["items"]) == 3
    assert whole["logging.googleapis.com/trace"] == f"projects/{settings.project}/traces/{TRACE}"
    (missing,), (busy,) = about("missing"), about("busy")
    assert (missing["severity"], busy["severity"]) == ("WARNING", "INFO")
    assert "404" in missing["message"]
    failures = [line for line in lines if line["severity"] == "ERROR"]
    assert any("batch_incomplete" in line["message"] or "BatchIncomplete" in line["message"] for line in failures)
    assert all(line.get("logging.googleapis.com/trace") for line in failures)

    assert KEY not in written
    for secret in (base64.b64encode(picture).decode()[:60], repr(picture)[2:40], picture[:8].decode("latin-1")):
        assert secret not in written
    assert not [line for line in written.splitlines() if line.startswith(("Traceback", "  File"))], written
