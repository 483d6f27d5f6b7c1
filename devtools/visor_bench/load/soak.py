"""`visor bench soak`: `visor serve` under mixed load, during crawls, merges, checks of links and a reindex.

It reports whether any request was answered with an error of ours, which errors the server's log and the commands show,
how the server's memory developed, and whether every picture is found once at the end.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
import numpy as np
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response

from visor.app import App
from visor.console import as_json, print_json, say
from visor.demo.pictures import ensure_demo_pictures
from visor.models.build.builder import ensure_model
from visor.schema.items import item_id
from visor.schema.search import Filters
from visor.settings import PREFIX, Settings
from visor.sources.config import PUSHED
from visor.web.access import KEY_HEADER, local_key
from visor.web.site import Server
from visor_bench.load.abuse import Request, hostile

KEPT, CHANGED, SOLD, PUSHED_KEYS = 240, 60, 40, 30
"""Pictures that stay as they are, files that change, items of a feed, and items that are pushed and deleted."""
OTHER_MODEL = "efficientnet_lite0"
CLIENTS = 4
SAMPLE_S = 10.0
WARM_UP = 0.5
"""Share of the time after which memory has to be flat."""
TROUBLE = re.compile(r"Traceback|\bERROR\b|has a bug here")


@dataclass
class Soak:
    """The index, the requests to its server, and their results.

    Args:
        root: An empty folder.
        home: `VISOR_HOME`, with both models.
        pictures: More than `KEPT`, no two alike.
    """

    root: Path
    home: Path
    model: str
    pictures: list[Path]
    statuses: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and resident bytes."""
    vectors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.root / "pictures"
        self.folder.mkdir()
        for number in range(KEPT):
            self.copy(number, self.folder / f"kept {number}.png")
        self.ids: list[str] = []
        self.stop = threading.Event()
        self.shop = Server(WerkzeugRequest.application(self.sell)).start()
        feed = f'[sources.shop]\nkind = "feed"\nurl = "{self.shop.address}/feed"\n'
        (self.root / "visor.toml").write_text(feed)

    def copy(self, number: int, path: Path) -> None:
        """Write the picture of that number, modulo how many there are, to a file."""
        path.write_bytes(self.pictures[number % len(self.pictures)].read_bytes())

    def sell(self, request: WerkzeugRequest) -> Response:
        """A shop: a feed whose prices change by the minute, and pictures by number."""
        if request.path == "/feed":
            rows = [f"{n}\tArticle {n}\t{request.host_url}{n}\t{time.time() // 60 % 100} EUR" for n in range(SOLD)]
            return Response("\n".join(["id\ttitle\timage_link\tprice", *rows]))
        number = KEPT + int(request.path.strip("/"))
        return Response(self.pictures[number % len(self.pictures)].read_bytes(), mimetype="image/png")

    @property
    def settings(self) -> Settings:
        """Those of `environ`, of this process."""
        host, config = self.shop.address.removeprefix("http://"), self.root / "visor.toml"
        return Settings(home=self.home, model=self.model, config=config, allow_hosts=(host,))

    def environ(self, **more: str) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        own = {name: getattr(self.settings, name.lower()) for name in ("HOME", "MODEL", "CONFIG")}
        own |= {"ALLOW_HOSTS": self.settings.allow_hosts[0]} | more
        return {**mine, **{PREFIX + name: str(value) for name, value in own.items()}}

    def visor(self, *command: str, **environ: str) -> str:
        """Run a command while the server runs, and note how it ended."""
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "visor", *command], env=self.environ(**environ), capture_output=True, text=True
        )
        self.commands[f"visor {command[0]}: {done.returncode}"] += 1
        if done.returncode or TROUBLE.search(done.stderr):
            self.trouble.append(f"visor {' '.join(command)} ended with {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    @contextmanager
    def served(self) -> Iterator[tuple[str, int]]:
        """The URL and process id of a running `visor serve`."""
        log = self.root / "serve.log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "visor", "serve", "--port", "0"]
            process = subprocess.Popen(command, env=self.environ(), stdout=file, stderr=file)  # noqa: S603
        try:
            for _ in range(600):
                if found := re.search(r"Visor is at (http://\S+)", log.read_text()):
                    yield found[1], process.pid
                    break
                time.sleep(0.2)
        finally:
            process.terminate()
            process.wait(60)
            lines = log.read_text().splitlines()
            self.trouble += [line for line in lines if TROUBLE.search(line)]

    def ask(self, client: httpx.Client, request: Request, *, owner: bool = False) -> httpx.Response | None:
        method, path, content = request
        if owner:
            content = {**content, "headers": {KEY_HEADER: local_key(self.home)}}
        try:
            response = client.request(method, path, **content)
        except httpx.HTTPError as exc:
            self.statuses[type(exc).__name__] += 1
            self.trouble.append(f"{method} {path:.60}: {exc!r}")
            return None
        self.statuses[str(response.status_code)] += 1
        if response.status_code >= 500:
            self.trouble.append(f"{method} {path:.60}: {response.status_code} {response.text:.300}")
        return response

    def one(self, client: httpx.Client, rng: random.Random, number: int) -> None:
        """One request of the mix; pictures that stay must be found."""
        seed = rng.randrange(KEPT)
        item = self.ids[seed]
        key = f"pushed {rng.randrange(PUSHED_KEYS)}"
        pushed = {"key": key, "image_url": f"{self.shop.address}/{rng.randrange(500)}", "price": 2}

        def search(**body: Any) -> Request:
            return "POST", "/v1/search", {"json": body}

        ordinary: list[Callable[[], Request]] = [
            lambda: search(item=item, k=rng.choice([1, 12, 200]), facets=True),
            lambda: search(vector=rng.choice(self.vectors), mode=rng.choice(["fast", "exact"])),
            lambda: search(item=item, filters={"source": [PUSHED], "price": {"min": 1}}),
            lambda: search(item=item, metric=rng.choice(["cityblock", "mahalanobis"])),
            lambda: ("POST", "/v1/explain", {"json": {"item": item, "match": rng.choice(self.ids)}}),
            lambda: ("POST", "/v1/feedback", {"json": {"item": rng.choice(self.ids), "query_item": item}}),
            lambda: ("GET", f"/v1/items/{item}", {}),
            lambda: ("GET", f"/pictures/{item}", {}),
            lambda: ("GET", "/v1/facets?source=" + PUSHED, {}),
            lambda: ("GET", rng.choice(["/", "/v1/stats", "/v1/items?limit=48", "/openapi.json", "/config.json"]), {}),
        ]
        owners: list[Callable[[], Request]] = [
            lambda: ("POST", "/v1/items", {"json": pushed}),
            lambda: ("DELETE", f"/v1/items/{item_id(PUSHED, key)}", {}),
        ]
        kind = rng.random()
        if kind < 0.3:
            files = {"files": {"image": (self.folder / f"kept {seed}.png").read_bytes()}}
            response = self.ask(client, ("POST", "/v1/search", files))
            if response is not None and response.status_code == 200:
                answer = response.json()
                if (vector := answer["query"].get("vector")) is None:
                    return
                self.vectors = [*self.vectors[-99:], vector]
                first = answer["matches"][0]
                places = {first["item"]["id"], *(place["item"] for place in first.get("places", ()))}
                if item not in places or first["verdict"] != "exact":
                    self.trouble.append(f"Picture {seed} found {first['item']['key']}, {first['verdict']}")
        elif kind < 0.75:
            self.ask(client, rng.choice(ordinary)())
        elif kind < 0.85:
            self.ask(client, rng.choice(owners)(), owner=True)
        else:
            self.ask(client, hostile(number, self.ids * 11, self.vectors))

    def load(self, address: str, rate: float) -> None:
        """Clients that together send `rate` requests a second, until `stop`."""
        numbers = itertools.count()

        def client(own: int) -> None:
            rng = random.Random(own)  # noqa: S311
            with httpx.Client(base_url=address, timeout=120) as http:
                while not self.stop.wait(rng.expovariate(rate / CLIENTS)):
                    self.one(http, rng, next(numbers))

        threads = [threading.Thread(target=client, args=(own,)) for own in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(self, until: float, started: float) -> None:
        """What an owner does meanwhile: files change, are indexed, merged and checked, and two reindexes run."""
        rng = random.Random(1)  # noqa: S311
        models = [(0.4, OTHER_MODEL), (0.55, self.model)]
        for number in itertools.count():
            if time.monotonic() >= until:
                return
            for _ in range(6):
                path = self.folder / f"changed {rng.randrange(CHANGED)}.png"
                if path.exists() and rng.random() < 0.4:
                    path.unlink()
                else:
                    self.copy(KEPT + rng.randrange(10**6), path)
            self.visor("index", str(self.folder) if number % 2 else "shop")
            if number % 3 == 1:
                self.visor("compact", *(["--relearn"] if number % 2 else []))
            if number % 5 == 2:
                self.visor("links", "--limit", "20")
                self.visor("feedback", "reject", "all")
            if models and (time.monotonic() - started) / (until - started) > models[0][0]:
                # The first reindex moves the index to the other model, and the second brings it back.
                self.index_twice()
                self.model = models.pop(0)[1]
                self.visor("reindex")
            self.stop.wait(15)

    def index_twice(self) -> None:
        """Both sources: what is gone is deleted when two crawls in a row miss it."""
        for name in (str(self.folder), "shop") * 2:
            self.visor("index", name)

    def sample(self, pid: int, started: float) -> None:
        """Note the server's memory until `stop`."""
        while not self.stop.wait(SAMPLE_S):
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            self.memory.append((time.monotonic() - started, resident * 1024))


def measure(settings: Settings, root: Path, *, seconds: float, rate: float) -> dict[str, Any]:
    """As the module says.

    Args:
        settings: Their home has the models; nothing is written there.
        root: An empty folder, for an index of its own.
        seconds: How long the load lasts.
        rate: Requests a second, of all clients together.

    Returns:
        `requests`, `statuses`, `commands` with their exit statuses, `trouble` (a list, best empty), `memory_mb` over
        the run, `slope_mb_an_hour` after the warm-up, pictures `searchable` and `expected` by source.
    """
    home = root / "home"
    shutil.copytree(settings.home / "models", home / "models")
    (home / "downloads").symlink_to(settings.home / "downloads")
    catalogue = ensure_demo_pictures(settings.home, say)
    pictures = [catalogue.picture(product) for product in catalogue.products]
    random.Random(3).shuffle(pictures)  # noqa: S311
    soak = Soak(root, home, settings.model, pictures)
    ensure_model(msgspec.structs.replace(soak.settings, model=OTHER_MODEL), say=say)
    soak.visor("index", str(soak.folder))
    with App(soak.settings) as app:
        source = app.open_folder(soak.folder).name
        made = np.random.default_rng(2).random((3, app.embedder.dimension)) ** 4
    soak.ids = [item_id(source, f"kept {number}.png") for number in range(KEPT)]
    soak.vectors = [base64.b64encode(one.astype("<f2").tobytes()).decode() for one in made]
    with soak.served() as (address, pid):
        started = time.monotonic()
        threads = [
            threading.Thread(target=soak.load, args=(address, rate)),
            threading.Thread(target=soak.sample, args=(pid, started)),
        ]
        for thread in threads:
            thread.start()
        try:
            soak.work(started + seconds, started)
        finally:
            soak.stop.set()
            for thread in threads:
                thread.join()
    soak.index_twice()
    soak.visor("check")
    with App(soak.settings) as app:
        counts = app.search_service().facets(Filters()).source
    soak.shop.stop()
    late = [(at, size) for at, size in soak.memory if at > WARM_UP * seconds]
    return {
        "requests": soak.statuses.total(),
        "seconds": round(seconds),
        "statuses": dict(sorted(soak.statuses.items())),
        "commands": dict(sorted(soak.commands.items())),
        "trouble": soak.trouble,
        "memory_mb": [round(size / 2**20) for _, size in soak.memory[:: max(1, len(soak.memory) // 24)]],
        "slope_mb_an_hour": round(
            float(np.polyfit([at for at, _ in late], [size for _, size in late], 1)[0]) * 3600 / 2**20, 1
        )
        if late
        else None,
        "searchable": {one.value: one.count for one in counts},
        "expected": {source: len(list(soak.folder.iterdir())), "shop": SOLD},
    }


@click.command("soak")
@click.option("--minutes", default=60.0, show_default=True, help="How long.")
@click.option("--rate", default=3.0, show_default=True, help="Requests a second.")
@as_json
def soak_command(minutes: float, rate: float, as_json: bool) -> None:
    """Send `visor serve` every kind of request while its index is crawled, merged and embedded again."""
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as root:
        report = measure(Settings.read(), Path(root), seconds=minutes * 60, rate=rate)
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        click.echo(f"{name:20} {value}")
