"""Crawls the source `mine` once and prints what came of it and the most memory that the process had, as JSON."""

from __future__ import annotations

import json
import resource

from visor.assembly import Assembly
from visor.settings import Settings

with Assembly(Settings.read()) as assembly:
    run = assembly.crawl(assembly.named_source("mine"))
peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"state": run.state, "published": run.published, "failed": run.failed, "peak_bytes": peak_bytes}))
