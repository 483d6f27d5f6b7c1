"""`visor bench bulk`: pictures a second of `visor bulk` and of one embed process, and whether both answer alike; and
seconds of its merge and of that of one process.

Run it in the environment that has Beam: `.venv-beam/bin/visor bench bulk`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image

from visor.console import as_json, print_json, say
from visor.index.format.container import Container, checksum
from visor.index.format.manifest import Manifest, read_manifest
from visor.settings import Settings
from visor.storage import open_stores
from visor.storage.objects import ObjectStore
from visor_bench.speed.search.index import bench_facets, write_shards
from visor_bench.speed.search.process import MODEL
from visor_bench.vectors import stand_ins

QUERIES = 100
RUN_MAX_S = 3600.0


@click.command("bulk")
@click.option("--pictures", default=2000, show_default=True, type=click.IntRange(100))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--kills", default=0, show_default=True, help="Workers that are killed at random while a bulk runs.")
@click.option("--merge", "images", type=click.IntRange(1000), help="Instead, merge this many made vectors, both ways.")
@click.option("--dimension", default=3328, show_default=True, help="Numbers in a made vector.")
@as_json
def bulk_command(pictures: int, workers: int, kills: int, images: int | None, dimension: int, as_json: bool) -> None:
    """Embed the same pictures by crawl and one embed process on one core, like the function, and by `visor bulk`."""
    document = measure_merge(images, dimension, workers) if images else measure(pictures, workers, kills)
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        click.echo(f"{name:16} {value}")


def measure(pictures: int, workers: int, kills: int = 0) -> dict[str, Any]:
    """Time both from the start of their processes to the last commit, without the listing and the merge.

    Returns:
        `embed_per_s`, `bulk_per_s` (all processes and their start included), `speedup`; `same_answers` of `QUERIES`
        pictures, to the last digit; `missing` and `twice` items after kills and a second run; `added` by that run.
    """
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as scratch:
        folder = Path(scratch, "pictures")
        write_pictures(folder, pictures)
        one, many = Path(scratch, "one"), Path(scratch, "many")
        say(f"{pictures} pictures by one embed process")
        _run([sys.executable, "-m", "visor_bench.load.bulk", "crawl", str(folder)], one)
        started = time.monotonic()
        _run([sys.executable, "-m", "visor_bench.load.bulk", "embed"], one)
        embed_s = time.monotonic() - started
        _run([_visor(), "compact"], one)
        say(f"{pictures} pictures by `visor bulk` with {workers} workers")
        killed, report = bulk(folder, many, workers, kills)
        before = stored(many)
        again = bulk(folder, many, workers)[1]
        items = searchable(many)
        per_s = pictures / embed_s, pictures / report["seconds"]
        return {
            "pictures": pictures,
            "workers": workers,
            "embed_per_s": round(per_s[0], 2),
            "bulk_per_s": round(per_s[1], 2),
            "speedup": round(per_s[1] / per_s[0], 2),
            "killed": killed,
            "passes": report["passes"],
            "missing": len(searchable(one).keys() - items.keys()),
            "twice": sum(count > 1 for count in items.values()),
            "added": sum(again.get("counts", {}).values()) + len(stored(many) ^ before),
            "same_answers": answers(one, folder) == answers(many, folder),
            "load": [round(load, 2) for load in os.getloadavg()],
        }


def measure_merge(images: int, dimension: int, workers: int) -> dict[str, Any]:
    """Merge the same shards by one process, which has all cores, and by workers; then learn the projection anew.

    Returns:
        `one_s`, `many_s` and `ratio` of the first merge; `one_build_s` and so on without learning the projection, which
        one process does in both ways; `relearn_…` of rewriting that index; `equal`: all tensors are the same to the
        last byte.
    """
    found: dict[str, Any] = {"images": images, "dimension": dimension, "workers": workers}
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as scratch:
        one, many = Path(scratch, "one"), Path(scratch, "many")
        write_index(one, images, dimension)
        shutil.copytree(one, many)
        for prefix, relearn in (("", False), ("relearn_", True)):
            say(f"{images} vectors of {dimension} numbers{', learned anew' if relearn else ''}")
            ours, theirs = merged(one, relearn=relearn), merged(many, workers, relearn=relearn)
            for part, less in (("", 0), ("build_", 1)):
                took = [round(report["seconds"] - less * report["learn_s"], 1) for report in (ours, theirs)]
                found |= {f"{prefix}one_{part}s": took[0], f"{prefix}many_{part}s": took[1]}
                found |= {f"{prefix}{part}ratio": round(took[0] / took[1], 2)}
            found |= {f"{prefix}equal": segments(one) == segments(many)}
            found |= {f"{prefix}load": [round(load, 2) for load in os.getloadavg()]}
        return found | {"segments": theirs["segments"]}


def write_index(home: Path, images: int, dimension: int) -> None:
    """Made vectors in shards that wait for a merge."""
    with open_stores(_settings(home)) as stores:
        write_shards(stores.objects, stores.documents, stand_ins(dimension=dimension), images, bench_facets)


def merged(
    home: Path, workers: int = 0, *, relearn: bool = False, segment_rows: int = 0, kills: int = 0,
    python: str = sys.executable,
) -> dict[str, Any]:  # fmt: skip
    """Merge an index in a process, with `workers` or alone, while some are killed; returns its report."""
    command = [python, "-m", "visor_bench.load.bulk", "merge", str(workers), str(int(relearn)), str(segment_rows)]
    with subprocess.Popen(command, env=_environ(home), stdout=subprocess.PIPE) as process:  # noqa: S603
        killed = _kill(process, kills, 0.1, 1.0)
        out, _ = process.communicate(timeout=RUN_MAX_S)
    if process.returncode:
        raise click.ClickException(f"a merge ended with status {process.returncode}")
    return {**json.loads(out.splitlines()[-1]), "killed": killed}


def _merge(workers: int, relearn: bool, segment_rows: int) -> dict[str, Any]:
    """All in one step, both ways."""
    from visor.bulk.lanes import DIRECT
    from visor.bulk.merging import BeamBuild
    from visor.bulk.pipeline import checked_options
    from visor.index.merge import merge as merging
    from visor.index.merge.policy import MergePolicy

    settings = Settings.read()
    small = {"segment_rows": segment_rows, "samples_min": 64, "small_rows": 16} if segment_rows else {}
    build = BeamBuild(settings, checked_options(DIRECT, [], settings, workers), DIRECT, say) if workers else None
    took: list[float] = []

    def learn(*arguments: Any, **options: Any) -> Any:
        started = time.monotonic()
        learned = own(*arguments, **options)
        took.append(time.monotonic() - started)
        return learned

    own, merging.learn = merging.learn, learn  # type: ignore[attr-defined]
    with open_stores(settings) as stores:
        report = merging.merge(
            stores.objects,
            stores.documents,
            model=MODEL,
            policy=MergePolicy(step_rows=sys.maxsize, **small),
            relearn=relearn,
            build=build,
            progress=say,
        )
    return {**msgspec.to_builtins(report), "learn_s": round(sum(took), 2)}


def segments(home: Path) -> list[dict[str, str]]:
    """`digests` of the index under a home."""
    with open_stores(_settings(home)) as stores:
        return digests(stores.objects, read_manifest(stores.objects, MODEL)[0])


def digests(objects: ObjectStore, manifest: Manifest | None) -> list[dict[str, str]]:
    """A checksum of each tensor of each live segment, except the words: Tantivy's files in them have random names."""
    names = [entry.name for entry in (manifest.segments if manifest else ())]
    opened = [Container.open(name, objects.get(name), kind="segment") for name in names]
    own = ("words", "header_digest")
    return [{t: checksum(one.array(t, verify=False).tobytes()) for t in one.tensors if t not in own} for one in opened]


def write_pictures(folder: Path, count: int) -> None:
    """JPEGs of coloured blocks, 640 × 480, the same in every run."""
    folder.mkdir()
    for seed in range(count):
        blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((640, 480), Image.Resampling.NEAREST)
        image.save(folder / f"{seed:06}.jpg", quality=88)


def bulk(
    folder: Path, home: Path, workers: int, kills: int = 0, program: Path | None = None
) -> tuple[int, dict[str, Any]]:
    """Run `visor bulk` on a folder, while random workers are killed. Returns how many were, and its report."""
    command = [str(program or _visor()), "bulk", str(folder), "--workers", str(workers), "--json"]
    with subprocess.Popen(command, env=_environ(home), stdout=subprocess.PIPE) as process:  # noqa: S603
        killed = _kill(process, kills, 0.5, 1.5)
        out, _ = process.communicate(timeout=RUN_MAX_S)
    if process.returncode:
        raise click.ClickException(f"visor bulk ended with status {process.returncode}")
    report: dict[str, Any] = json.loads(out)
    return killed, report


def _kill(process: subprocess.Popen[bytes], kills: int, least_s: float, most_s: float) -> int:
    """Kill random workers below a process, each at such a time after there were some; returns how many were."""
    killed, chance = 0, random.Random(0)  # noqa: S311
    deadline = time.monotonic() + RUN_MAX_S
    while killed < kills and process.poll() is None and time.monotonic() < deadline:
        if not worker_processes(process.pid):
            time.sleep(0.1)
            continue
        time.sleep(chance.uniform(least_s, most_s))
        if found := worker_processes(process.pid):
            os.kill(chance.choice(found), signal.SIGKILL)
            killed += 1
    return killed


def worker_processes(root: int) -> list[int]:
    """Beam's workers below a process (Linux)."""
    children: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append((int(path.name), path.joinpath("cmdline").read_bytes()))
        except OSError:
            continue
    found, todo = [], [root]
    while todo:
        for pid, command in children[todo.pop()]:
            todo.append(pid)
            found += [pid] if b"sdk_worker_main" in command else []
    return found


def stored(home: Path) -> set[tuple[str, int]]:
    """Name and size of every segment and shard."""
    with open_stores(_settings(home)) as stores:
        return {
            (info.name, info.size_bytes) for where in ("segments/", "shards/") for info in stores.objects.list(where)
        }


def searchable(home: Path) -> dict[str, int]:
    """Item id to the number of its rows in the index."""
    from visor.app import App
    from visor.index.format.ids import id_text
    from visor.schema.collections import ITEMS

    with App(_settings(home)) as app:
        rows: dict[str, int] = defaultdict(int)
        app.searcher.refresh()
        for _, ids in app.searcher.full_vectors():
            for row in ids:
                rows[id_text(row)] += 1
        items = {document.key for document in app.stores.documents.query(ITEMS)}
    assert rows.keys() == items, "the index and its documents differ"
    return dict(rows)


def answers(home: Path, folder: Path) -> list[bytes]:
    """An index's answers to some of the pictures: items, similarities, confidences and verdicts, to the last digit."""
    import visor

    paths = sorted(folder.glob("*.jpg"))
    chosen = paths[:: max(1, len(paths) // QUERIES)][:QUERIES]
    with visor.open(home, settings=_settings(home)) as index:
        return [_said(index.search(path, k=12)) for path in chosen]


def _said(result: Any) -> bytes:
    rows = [(m.item.id, m.similarity, m.confidence, m.verdict, [p.id for p in m.places]) for m in result.matches]
    return msgspec.json.encode([result.confidence, result.no_confident_match, rows])


def _settings(home: Path) -> Settings:
    return msgspec.structs.replace(Settings.read(), home=home, models=str(_models()), threads=1, freshness_s=0.0)


def _models() -> Path:
    settings = Settings.read()
    return Path(settings.models or settings.home / "models")


def _environ(home: Path) -> dict[str, str]:
    more = {"VISOR_HOME": str(home), "VISOR_MODELS": str(_models()), "VISOR_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return os.environ | more


def _visor() -> str:
    return str(Path(sys.executable).with_name("visor"))


def _run(command: list[str], home: Path) -> None:
    subprocess.run(command, env=_environ(home), stdout=subprocess.DEVNULL, check=True)  # noqa: S603


def main() -> None:
    """In its own process: `crawl FOLDER` publishes what is in a folder, `embed` embeds all that was published,
    `merge WORKERS RELEARN SEGMENT_ROWS` merges what `write_index` wrote."""
    from visor.app import App
    from visor.ingest.worker import Worker

    settings = Settings.read()
    if sys.argv[1] == "merge":
        workers, relearn, segment_rows = map(int, sys.argv[2:])
        print(json.dumps(_merge(workers, bool(relearn), segment_rows)))
        return
    if sys.argv[1] == "crawl":
        with App(settings) as app:
            source = app.open_folder(Path(sys.argv[2]))
            app.remember(source.name, {"kind": "folder", "path": sys.argv[2]})
            app.crawler.crawl(source)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one vCPU, as the function has
    with App(settings) as app:
        Worker(app.stores.queue, app.batch_embedder, threads=1).drain()


if __name__ == "__main__":
    main()
