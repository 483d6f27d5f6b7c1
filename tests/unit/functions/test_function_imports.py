"""A function imports what it needs and nothing else: what it does not import does not delay its first answer."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from tempfile import TemporaryDirectory

import pytest
from packaging.utils import canonicalize_name
from scripts import bundle
from tests.unit.deploy.test_deploy_bundle import closure

STORES = "visor.storage.gcp.objects, visor.storage.gcp.documents"
OPENED = {
    "crawl": f"a.source_context; import visor.ingest.crawler, visor.storage.gcp.queue, {STORES}",
    "embed": f"import visor.ingest.embed, visor.free_tier.quota, visor.models.embedder, visor.http.client, {STORES}",
    "compact": "import visor.index.merge.merge, visor.confidence.fit_index, visor.search.feedback, "
    f"visor.ingest.reindex, visor.models.store, {STORES}",
    "search": "import visor.web.api, visor.web.access, visor.search.active_index, visor.models.embedder, "
    "visor.http.client, "
    f"visor.index.search.searcher, {STORES}",
}
"""What a function has imported when it answers."""
SOMETIMES = {
    "crawl": "from visor.sources.registry import load_kind; "
    "[load_kind(k) for k in ('shop_api', 'feed', 'wikidata', *{kinds})]; "
    "from visor.sources.parse.encoding import decoded; decoded(b'', 'latin-1'); "
    "from visor.sources.client import _parse_xml; _parse_xml(b'<a/>')",
    "embed": "import ai_edge_litert.interpreter, visor.image_readers.readers, "
    "visor.storage.bucket_clients, visor.storage.gcp.queue",
    "compact": "import visor.index.merge.garbage, visor.index.format.projection, visor.export.publish",
    "search": "import ai_edge_litert.interpreter, visor.ingest.push, visor.search.explain, visor.storage.gcp.queue, "
    "visor.index.search.metrics, visor.near_duplicates.verdict, visor.sources.parse.price",
}
"""What it imports where a request or source needs it."""
UNWANTED = {
    "crawl": {"ai_edge_litert", "faiss", "scipy", "tensorflow", "pillow_heif", "PIL", "lxml", "extruct", "av"},
    "embed": {"faiss", "scipy", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "iso4217", "lxml"},
    "compact": {"ai_edge_litert", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "httpx", "scipy", "PIL"},
    "search": {"ai_edge_litert", "scipy", "jmespath", "google.cloud.pubsub_v1", "tensorflow", "iso4217", "lxml"},
}
"""What would delay a function's start for nothing."""
CLOUD = {
    "google-cloud-storage": "google.cloud.storage",
    "google-cloud-firestore": "google.cloud.firestore",
    "google-cloud-pubsub": "google.cloud.pubsub_v1",
}
"""Distributions that share the package `google`."""
PROGRAM = """
import json, sys
from pathlib import Path

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from visor.app import App
from visor.settings import Settings
import visor.web.cloud_logging
a = App(Settings(home=Path(sys.argv[1])))
{code}
print(json.dumps(sorted(sys.modules)))
"""


def imported(code: str, blocked: list[str] | None = None) -> set[str]:
    """The modules of a process that ran `code` in an environment without the modules `blocked`."""
    program = PROGRAM.format(code=code, blocked=sorted(blocked or []))
    with TemporaryDirectory() as home:
        done = subprocess.run([sys.executable, "-c", program, home], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@functools.cache
def brought() -> Mapping[str, set[str]]:
    """The distributions that bring each top-level module: kept, since all that is installed is read for it."""
    return {top: {str(canonicalize_name(name)) for name in names} for top, names in packages_distributions().items()}


def modules_of(distribution: str) -> set[str]:
    """Top-level modules that a distribution brings."""
    if distribution in CLOUD:
        return {CLOUD[distribution]}
    tops = {top for top, names in brought().items() if distribution in names}
    return tops - {"google", "__pycache__"}


@pytest.mark.parametrize("name", sorted(OPENED))
@pytest.mark.slow
def test_a_function_imports_only_what_it_needs(name: str) -> None:
    assert imported(OPENED[name]) & UNWANTED[name] == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPENED))
def test_a_function_requires_all_that_it_imports_and_imports_all_that_it_requires(name: str) -> None:
    kinds = bundle.source_kinds()
    required = [str(canonicalize_name(one)) for one in bundle.required(name, kinds)]
    there = closure(required) | {"visor", "visor-search", "visor-devtools"}
    blocked = [module for dist, module in CLOUD.items() if dist not in there]
    blocked += [top for top, names in brought().items() if top != "google" and not there & names]
    code = "\n".join((OPENED[name], SOMETIMES[name].replace("{kinds}", repr(tuple(kinds)))))
    modules = imported(code, blocked)
    unused = [one for one in required if one != "functions-framework" and not modules_of(one) & modules]
    # fsspec is opened by the bucket's scheme.
    assert set(unused) <= {"fsspec"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", bundle.source_kinds())
def test_a_source_whose_libraries_are_missing_says_how_to_get_them(kind: str) -> None:
    names = closure(bundle.required("crawl", [kind])) - closure(bundle.required("crawl"))
    code = (
        "from visor.sources.registry import load_kind\n"
        "from visor.errors import NotConfigured\n"
        f"try:\n    load_kind({kind!r})\nexcept NotConfigured as exc:\n"
        f"    assert 'visor-search[{kind}]' in str(exc) and 'bundle.py --config' in str(exc), exc\n"
        "else:\n    raise AssertionError('it was loaded')"
    )
    imported(code, sorted(module for name in names for module in modules_of(name)))
