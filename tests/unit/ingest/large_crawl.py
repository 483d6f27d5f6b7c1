"""Crawls the source `mine` once and prints what came of it and the most memory that the process had, as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

from visor.app import App
from visor.settings import Settings

with App(Settings.read()) as app:
    run = app.crawler.crawl(app.named_source("mine"))
# `ru_maxrss` would begin with what the process that started this one had.
peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
assert peak_kib is not None
peak_bytes = int(peak_kib[1]) * 1024
print(json.dumps({"state": run.state, "published": run.published, "failed": run.failed, "peak_bytes": peak_bytes}))
