"""The search function serves the page where it is told to, as functions-framework starts it."""

from __future__ import annotations

import re

import httpx
import msgspec

from visor.settings import Settings
from visor_emulators.demo import running_function


def test_page_and_endpoint_at_one_address(cloud_settings: Settings, built_settings: Settings) -> None:
    settings = msgspec.structs.replace(
        cloud_settings, home=built_settings.home, page_config='{"title":"Shop","notes":[{"text":"Hand-made"}]}'
    )
    with running_function("search", settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        page = client.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        (script,) = re.findall(r'src="\./(assets/[^"]+\.js)"', page.text)
        assert client.get(f"/{script}").headers["Content-Encoding"] == "gzip"
        assert client.get("/config.json").json() == {"endpoint": "", "title": "Shop", "notes": [{"text": "Hand-made"}]}
        assert client.get("/v1/health").json()["images"] == 0
        assert client.get("/pictures/abc").status_code == 404
        assert client.post("/v1/search", json={}).headers["Content-Type"] == "application/problem+json"
