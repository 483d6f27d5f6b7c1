"""A function imports what it needs and nothing else: what it does not import does not delay its first answer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OPENED = {
    "crawl": "a.source_context; import visor.pipeline.crawl, visor.pipeline.links, visor.pipeline.frames, "
    "visor.pipeline.request_budget, visor.stores.gcp.queue, visor.stores.gcp.documents",
    "embed": "import visor.pipeline.embed, visor.models.run, visor.images.fetch, visor.stores.gcp.documents",
    "compact": "import visor.index.merge, visor.index.calibrate_segments, "
    "visor.models.directory, visor.stores.gcp.objects, visor.stores.gcp.documents",
    "search": "import visor.web.app, visor.web.gate, visor.pipeline.serving, visor.models.run, visor.images.fetch, "
    "visor.index.search, visor.stores.gcp.objects, visor.stores.gcp.documents",
}
UNWANTED = {
    "crawl": {"ai_edge_litert", "faiss", "scipy", "tensorflow", "pillow_heif"},
    "embed": {"faiss", "scipy", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "price_parser"},
    "compact": {"ai_edge_litert", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "httpx", "scipy"},
    "search": {"scipy", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "price_parser"},
}


@pytest.mark.parametrize("name", sorted(OPENED))
def test_a_function_imports_only_what_it_needs(name: str) -> None:
    program = (
        "import json, sys\n"
        "from visor.assembly import Assembly\nfrom visor.settings import Settings\nimport visor.web.logs\n"
        f"a = Assembly(Settings())\n{OPENED[name]}\n"
        f"print(json.dumps(sorted(set({sorted(UNWANTED[name])}) & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
