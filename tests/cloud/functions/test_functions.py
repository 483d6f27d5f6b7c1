"""The functions as they deploy: each bundle in a fresh environment of its own, with the emulators behind them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
from scripts import bundle
from tests.cloud.support.running import pushing, wait_until

from visor.demo.catalogue import DemoCatalogue
from visor.demo.shop import DemoShop, demo_source
from visor.deploy.terraform import read_terraform, text_of
from visor.free_tier.allowances import allowances
from visor.free_tier.cost_model import ENOUGH
from visor.models.store import model_directory
from visor.settings import PREFIX, Settings
from visor.storage import open_documents
from visor_emulators.demo import environ_of, running_function

pytestmark = pytest.mark.timeout(1200)
"""Five environments are installed and packed: minutes on a busy machine."""
TERRAFORM = Path(__file__).parents[3] / "terraform"
SIGNATURE = "http"
"""No function has an event trigger in terraform/, so Cloud Functions builds all of them as HTTP functions."""
ONLY_HERE = {"allow_hosts", "subscription", "dead_letter_topic", "dead_letter_subscription", "embed_attempts_max"}
"""Settings that the tests need and a deployment does not: the shop has no public address, names are a test's own."""


@dataclass(frozen=True)
class Bundles:
    """Unpacked bundles by function, with an interpreter for each."""

    folder: Path
    pythons: dict[str, str]


def install(folder: Path, environment: Path) -> str:
    """A fresh environment with what the bundle requires and nothing else; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, "-r", str(folder / "requirements.txt")], check=True, capture_output=True)
    return python


@pytest.fixture(scope="module")
def bundles(built_settings: Settings, demo_shop: DemoShop, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Each function's bundle as it is uploaded, and its requirements installed."""
    folder = tmp_path_factory.mktemp("bundles")
    config = folder / "visor.toml"
    config.write_text(toml("demo", demo_source(demo_shop.url)), encoding="utf-8")
    model = model_directory(built_settings, built_settings.model)
    names = bundle.function_names()
    for name in names:
        bundle.write(bundle.contents(name, model, config), folder / f"{name}.zip")
    with ThreadPoolExecutor(2) as pool:
        pythons = dict(zip(names, pool.map(lambda n: install(folder / n, folder / f"{n}-env"), names), strict=True))
    return Bundles(folder, pythons)


def toml(name: str, source: dict[str, object]) -> str:
    """One source as a visor.toml."""

    def value(one: object) -> str:
        if isinstance(one, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in one.items()) + "}"
        return json.dumps(one)

    return f"[sources.{name}]\n" + "".join(f"{key} = {value(one)}\n" for key, one in source.items())


def test_bundles_are_built_as_terraform_deploys_them() -> None:
    config = read_terraform(TERRAFORM)
    function = config.of("resource")["google_cloudfunctions2_function.function"]
    assert function.inner("build_config")[0].attributes["entry_point"] == "${each.key}"
    assert not function.inner("event_trigger"), "an event trigger would build a function with another signature"
    runtime = config.of("variable")["var.runtime"].attributes["default"]
    assert text_of(runtime) == "python{}{}".format(*sys.version_info)


def test_no_bundle_brings_tensorflow_and_all_fit_the_free_registry(bundles: Bundles) -> None:
    sizes = {}
    packed: dict[tuple[str, int], int] = {}
    for name, python in bundles.pythons.items():
        packages = next((Path(python).parents[1] / "lib").glob("python*/site-packages"))
        names = {re.split(r"-\d", path.name)[0] for path in packages.glob("*.dist-info")}
        assert not [n for n in names if bundle.FORBIDDEN.match(n)], name
        files = [path for folder in (packages, bundles.folder / name) for path in folder.rglob("*") if path.is_file()]
        for path in files:
            # Each file alone, and the fastest compression, which is the weakest: an upper bound of what is stored.
            if (key := (path.name, path.stat().st_size)) not in packed:
                packed[key] = HEADER_BYTES + len(zlib.compress(path.read_bytes(), 1))
        sizes[name] = sum(packed[path.name, path.stat().st_size] for path in files)
    print("Compressed, installed:", ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items()))
    free = allowances().of("Artifact Registry", "stored").free * 2**30
    assert sum(sizes.values()) < ENOUGH * free, sizes


HEADER_BYTES = 512
"""Before each file of a tar archive."""


def test_crawl_to_search_through_the_deployed_functions(
    bundles: Bundles, demo_shop: DemoShop, demo_catalogue: DemoCatalogue, cloud_settings: Settings
) -> None:
    settings = msgspec.structs.replace(cloud_settings, allow_hosts=(demo_shop.host,), freshness_s=0.0, threads=1)
    deployed = set(read_terraform(TERRAFORM).local_values["settings"])
    own = {name.removeprefix(PREFIX).lower() for name in environ_of(settings)}
    assert {PREFIX + name.upper() for name in own - ONLY_HERE} <= deployed

    with ExitStack() as stack:
        documents = open_documents(settings)
        stack.callback(documents.close)

        def start(name: str) -> str:
            here = msgspec.structs.replace(settings, home=bundles.folder / name)
            function = running_function(
                name, here, signature=SIGNATURE, source=bundles.folder, python=bundles.pythons[name]
            )
            return stack.enter_context(function)

        embed, crawl = start("embed"), start("crawl")
        stack.enter_context(pushing(settings, embed))
        runs = httpx.post(crawl, timeout=120).raise_for_status().json()
        products = len(demo_catalogue.products)
        assert [(run["state"], run["published"]) for run in runs] == [("complete", products)]
        wait_until(lambda: len(documents.query("items")) == products, "all items are embedded")
        assert documents.query("failures") == []

        endpoint = start("search")
        product = demo_catalogue.products[3]
        picture = demo_catalogue.picture(product).read_bytes()

        def best() -> tuple[str, str]:
            answer = httpx.post(
                f"{endpoint}/v1/search", content=picture, headers={"Content-Type": "image/png"}, timeout=60
            )
            match = answer.raise_for_status().json()["matches"][0]
            return match["item"]["title"], match["verdict"]

        before = best()
        assert before == (product.title, "exact")
        report = httpx.post(start("compact"), timeout=120).raise_for_status().json()
        assert (report["images"], report["segments"]) == (products, 1)
        assert best() == before
        stats = httpx.get(f"{endpoint}/v1/stats", timeout=60).json()
        assert (stats["images"], stats["segments"], stats.get("fresh", 0)) == (products, 1, 0)

        again = httpx.post(crawl, timeout=120).raise_for_status().json()
        assert again == [], "the source is not due again"
