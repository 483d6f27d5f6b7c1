"""A search process like the function's, up to its first answer; prints where the time went.

It does what functions/search/main.py does under functions-framework, and sends itself a request over WSGI.
"""

from __future__ import annotations

import sys
import time

ENTERED = time.time()


def main() -> None:
    """Arguments: `picture` or `vector`, and the picture to search for. Prints one JSON document, times in seconds."""
    import base64
    import json
    import resource
    from pathlib import Path
    from typing import Any

    import numpy as np

    from visor_bench.speed.search.process import process_start

    started = process_start()
    marks = [started]

    def mark() -> float:
        marks.append(time.time())
        return float(round(marks[-1] - marks[-2], 4))

    import functions_framework  # noqa: F401
    import gunicorn.app.base  # noqa: F401
    from flask import Request
    from werkzeug.test import EnvironBuilder

    from visor.app import App
    from visor.settings import Settings
    from visor.web.cloud_logging import log_to_cloud

    settings = Settings.read()
    log_to_cloud(settings.project)
    app = App(settings)
    import visor.index.search.searcher
    import visor.search.service
    import visor.storage.gcp.documents
    import visor.storage.gcp.objects
    import visor.web.api  # noqa: F401

    parts = {"imports": mark()}
    app.embedder  # noqa: B018 — loads it
    api = app.http_api()
    parts["model"] = mark()
    from visor.index.format.manifest import read_manifest

    manifest, _ = read_manifest(app.stores.objects, app.embedder.fingerprint)
    assert manifest is not None
    parts["manifest"] = mark()
    app.searcher.refresh()
    parts["segments"] = mark()
    sent: dict[str, Any]
    if sys.argv[1] == "vector":
        numbers = np.full(app.embedder.dimension, app.embedder.dimension**-0.5, "<f2").tobytes()
        sent = {"json": {"vector": base64.b64encode(numbers).decode()}}
    else:
        sent = {"data": Path(sys.argv[2]).read_bytes(), "content_type": "image/png"}
    builder = EnvironBuilder("/v1/search", method="POST", **sent)
    answer = api(Request(builder.get_environ()))
    parts["first_query"] = mark()
    assert answer.status_code == 200, answer.get_data(as_text=True)
    document = json.loads(answer.get_data())
    took, images = round(time.time() - started, 4), document["index"]["images"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used = {"cpu_s": time.process_time(), "resident_mb": pages * resource.getpagesize() / 1e6}
    print(json.dumps({"first_answer_s": took, **parts, **used, "images": images}))


if __name__ == "__main__":
    main()
