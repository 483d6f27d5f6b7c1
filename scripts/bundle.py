"""Make the source bundle of each function, exactly as it is uploaded: a zip, and the folder next to it.

    python scripts/bundle.py OUT [--function NAME]… [--model DIR [--previous DIR] | --without-model] [--config FILE]
                             [--page DIR] [--terraform DIR [--var NAME=VALUE]…] [--measure [--record]]

A bundle holds the function's main.py, its requirements with every version pinned, the package `visor` without the
parts that only a laptop runs, and, if the function embeds pictures, the model. Kinds of sources that need large
libraries have their own requirements (functions/crawl/requirements-KIND.txt), which are added if the owner's visor.toml
names one; the built page is in search. Next to search.zip is metrics/search.zip, with SciPy for named metrics: the
Terraform variable `metrics` chooses. If the variable `telemetry` is set, all bundles have the libraries that send
traces. A visor.toml that cannot work on Google Cloud with Terraform's variables is refused; the names of its sources go
into sources.json, where Terraform reads them. The same input makes the same bytes, so Terraform redeploys only what
changed.

`--measure` installs each bundle's requirements into an empty folder and prints its compressed size: what the function's
image adds in Artifact Registry, where 0.5 GB are free. `--record` writes the size where `visor cost` reads it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import msgspec

from visor import __version__
from visor.deploy.owner import check_owner, given_variables
from visor.errors import VisorError
from visor.free_tier.allowances import ImageSize, ImageSizes
from visor.models.store import model_directory, read_manifest
from visor.settings import Settings
from visor.sources.config import SourcesFile

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"
PACKAGE = ROOT / "shared" / "visor"
IMAGES = PACKAGE / "free_tier" / "images.json"
LAPTOP_ONLY = {"bulk", "cli", "demo", "library"}
WHOLE_MODEL = {"embed", "search"}
MODEL_MANIFEST = {"compact"}
"""compact has to know which model's vectors it merges, but runs no model."""
WITHOUT_PACKAGE = {"switch"}
EPOCH = (1980, 1, 1, 0, 0, 0)
FORBIDDEN = re.compile(r"^tensorflow|^keras", re.IGNORECASE)


def function_names() -> list[str]:
    """The functions that have a main.py."""
    return sorted(path.parent.name for path in FUNCTIONS.glob("*/main.py"))


def source_kinds() -> list[str]:
    """The kinds of sources that bring requirements of their own into crawl."""
    return sorted(p.stem.removeprefix("requirements-") for p in (FUNCTIONS / "crawl").glob("requirements-*.txt"))


def required(name: str, extras: Sequence[str] = ()) -> list[str]:
    """Names of the distributions that a function requires, with those of its requirements-EXTRA.txt. Extras are a kind
    of source for crawl, `metrics` for search, what the model needs, and `telemetry`, which is the same for all. An
    extra without such a file adds nothing."""
    files = [FUNCTIONS / name / "requirements.txt", *(FUNCTIONS / name / f"requirements-{one}.txt" for one in extras)]
    files += [FUNCTIONS / f"requirements-{one}.txt" for one in extras if name not in WITHOUT_PACKAGE]
    return sorted({line for file in files if file.is_file() for line in _lines(file)})


def kinds_of(config: Path) -> list[str]:
    """The kinds of sources that an owner's visor.toml names."""
    sources = tomllib.loads(config.read_text(encoding="utf-8")).get("sources", {})
    return sorted({str(source.get("kind")) for source in sources.values()})


def model_extras(*models: Path | None) -> list[str]:
    """The extras that models need to run: `onnx`, `words`."""
    files = [path for model in models if model is not None for path in model.iterdir()]
    needs = {"onnx": any(path.suffix == ".onnx" for path in files), "words": any("tokenizer" in p.name for p in files)}
    return [extra for extra, needed in needs.items() if needed]


def pinned(name: str, extras: Sequence[str] = ()) -> str:
    """What `required` names, each with its version, and the constraints that pin what they bring along."""
    versions = dict(line.split("==") for line in _lines(ROOT / "constraints.txt"))
    wanted = required(name, extras)
    missing = sorted(set(wanted) - versions.keys())
    if missing:
        sys.exit(f"constraints.txt pins no {', '.join(missing)} of function {name}. Run scripts/lock.py.")
    if forbidden := [requirement for requirement in wanted if FORBIDDEN.match(requirement)]:
        sys.exit(f"Function {name} requires {', '.join(forbidden)}: TensorFlow builds models and is in no function.")
    # Google's buildpack installs again only if requirements.txt changed, so it has to change with the constraints.
    constraints = hashlib.blake2b((ROOT / "constraints.txt").read_bytes(), digest_size=8).hexdigest()
    header = f"# constraints.txt {constraints}\n-c constraints.txt\n"
    return header + "".join(f"{name}=={versions[name]}\n" for name in wanted)


def contents(
    name: str,
    model: Path | None,
    config: Path | None = None,
    previous: Path | None = None,
    *,
    metrics: bool = False,
    telemetry: bool = False,
    page: Path | None = None,
) -> dict[str, bytes]:
    """Path in the bundle to the bytes of each file.

    Args:
        name: The function.
        model: Directory of the built model; none leaves it out.
        previous: Directory of the model whose index is searched until a reindex is done; for search.
        config: The owner's visor.toml, which names the sources; for crawl. search gets only its attributes.
        metrics: Include SciPy; for search.
        telemetry: Include the libraries that send traces.
        page: Folder of the built page; for search.
    """
    extras = [*(kinds_of(config) if config is not None else ()), *(["metrics"] if metrics else ())]
    extras += ["telemetry"] if telemetry else []
    extras += model_extras(model, previous if name == "search" else None)
    files = {
        "main.py": (FUNCTIONS / name / "main.py").read_bytes(),
        "requirements.txt": pinned(name, extras).encode(),
        "constraints.txt": (ROOT / "constraints.txt").read_bytes(),
    }
    if name not in WITHOUT_PACKAGE:
        files |= _package()
    if model is not None and name in WHOLE_MODEL | MODEL_MANIFEST:
        files |= _model(model, whole=name in WHOLE_MODEL)
    if previous is not None and name == "search":
        files = _model(previous, whole=True) | files
    if page is not None and name == "search":
        files |= {
            f"visor/web/page/{path.relative_to(page).as_posix()}": path.read_bytes()
            for path in page.rglob("*")
            if path.is_file()
        }
    if config is not None and name == "crawl":
        files["visor.toml"] = config.read_bytes()
    if config is not None and name == "search" and (attributes := SourcesFile.load(config).attributes):
        lines = ["[attributes]", *(f'{json.dumps(key)} = "{type_}"' for key, type_ in attributes.items())]
        files["visor.toml"] = "\n".join(lines).encode()
    return files


def _package() -> dict[str, bytes]:
    """The package as it is imported, and its metadata, through which sources are found (entry points)."""
    files = {}
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE)
        if path.is_file() and inside.parts[0] not in LAPTOP_ONLY and path.suffix != ".pyc":
            files[f"visor/{inside.as_posix()}"] = path.read_bytes()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(entries.items())) + "\n"
        for group, entries in sorted(project["entry-points"].items())
    )
    about = f"visor_search-{__version__}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: visor-search\nVersion: {__version__}\n"
    return files | {f"{about}/METADATA": metadata.encode(), f"{about}/entry_points.txt": points.encode()}


def _model(model: Path, *, whole: bool) -> dict[str, bytes]:
    """The model's directory, where VISOR_HOME=/workspace looks for it."""
    files = {
        f"models/{model.name}/{path.relative_to(model).as_posix()}": path.read_bytes()
        for path in model.rglob("*")
        if path.is_file() and (whole or path.suffix == ".json")
    }
    suffixes = {path.rpartition(".")[2] for path in files}
    if "json" not in suffixes or (whole and not {"tflite", "onnx"} & suffixes):
        sys.exit(f"{model} holds no whole model. Run `visor model build` and try again.")
    return files


def write(files: dict[str, bytes], target: Path) -> None:
    """Write the zip `target`, with the same bytes for the same files, and the folder of the same name next to it."""
    folder = target.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[path])
            unpacked = folder / path
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            unpacked.write_bytes(files[path])


def installed(bundle: Path) -> ImageSize:
    """Compressed size of what the bundle's requirements install and of the bundle itself, and their contents."""
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-installed"]
        subprocess.run(
            [*pip, "--target", scratch, "-r", str(bundle / "requirements.txt")], check=True, capture_output=True
        )
        packages = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions(path=[scratch])}
        if any(FORBIDDEN.match(name) for name in packages):
            sys.exit(f"{bundle.name} installs TensorFlow or Keras, which no function may")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
            archive.add(scratch, "site-packages")
            archive.add(bundle, "workspace")
        return ImageSize(bytes=buffer.tell(), packages=dict(sorted(packages.items())))


def measured(names: Sequence[str], model: Path | None, previous: Path | None) -> ImageSizes:
    """The size of each function's image, and what each kind of source adds to crawl, SciPy to search, and a model's
    libraries to embed or search."""

    def of(name: str, extras: Sequence[str] = ()) -> ImageSize:
        with tempfile.TemporaryDirectory() as scratch:
            files = contents(name, model, previous=previous) | {"requirements.txt": pinned(name, extras).encode()}
            write(files, Path(scratch) / f"{name}.zip")
            size = installed(Path(scratch) / name)
        print(f"{' with '.join([name, *extras])}: {size.bytes:,} bytes compressed, installed", file=sys.stderr)
        return size

    def added(name: str, extra: str) -> ImageSize:
        size, base = of(name, [extra]), functions[name]
        packages = {name: version for name, version in size.packages.items() if name not in base.packages}
        return ImageSize(bytes=size.bytes - base.bytes, packages=packages)

    functions = {name: of(name) for name in names}
    runtimes = {extra: name for extra, name in (("onnx", "embed"), ("words", "search")) if name in functions}
    return ImageSizes(
        model=model.name if model else None,
        model_bytes=sum(file.size_bytes for file in read_manifest(model).files) if model else 0,
        functions=functions,
        sources={kind: added("crawl", kind) for kind in source_kinds() if "crawl" in functions},
        metrics=added("search", "metrics") if "search" in functions else None,
        runtimes={extra: added(name, extra) for extra, name in runtimes.items()},
    )


def _lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--function", action="append", choices=function_names(), help="only this one; may be repeated")
    parser.add_argument("--model", type=Path, help="directory of the built model (default: Terraform's, VISOR_MODEL)")
    parser.add_argument("--previous", type=Path, help="model that search serves until `visor reindex` is done")
    parser.add_argument("--without-model", action="store_true", help="leave the model out, e.g. to look at the rest")
    parser.add_argument("--config", type=Path, help="visor.toml with the sources that crawl reads")
    parser.add_argument("--page", type=Path, help="folder of the built page, which search can then serve")
    parser.add_argument("--terraform", type=Path, help="folder with terraform.tfvars: check visor.toml against it")
    parser.add_argument("--var", action="append", default=[], help="a further Terraform variable, as NAME=VALUE")
    parser.add_argument("--measure", action="store_true", help="install each and print its compressed size as JSON")
    parser.add_argument(
        "--record", action="store_true", help="write what was measured of all functions into images.json"
    )
    args = parser.parse_args()
    settings = Settings.read()
    given: dict[str, Any] = {}
    if args.terraform is not None:
        try:
            given = given_variables(args.terraform, args.var)
            sources = check_owner(given, args.config)
        except VisorError as exc:
            sys.exit(str(exc))
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "sources.json").write_text(json.dumps(sources) + "\n", encoding="utf-8")
    if args.page is not None and not (args.page / "index.html").is_file():
        sys.exit(f"{args.page} holds no built page. Run `npm ci && npm run build` in frontend/.")
    names = args.function or function_names()
    model = args.model
    if model is None and not args.without_model and WHOLE_MODEL & set(names):
        try:
            model = model_directory(settings, str(given.get("model", settings.model)))
        except VisorError as exc:
            sys.exit(str(exc))
    if model is not None and not model.is_dir():
        sys.exit(f"{model} is not a model directory. Run `visor model build`, or name one with --model.")
    for name, metrics in [*((name, False) for name in names), *((name, True) for name in names if name == "search")]:
        target = args.out / ("metrics" if metrics else "") / f"{name}.zip"
        options = {"metrics": metrics, "telemetry": bool(given.get("telemetry"))}
        write(contents(name, model, args.config, args.previous, page=args.page, **options), target)
        print(f"{target}: {target.stat().st_size:,} bytes", file=sys.stderr)
    if args.measure:
        sizes = measured(names, model, args.previous)
        image_bytes = {name: size.bytes for name, size in sizes.functions.items()}
        added = {kind: size.bytes for kind, size in sizes.sources.items()}
        document = {"image_bytes": image_bytes, "added_by_source": added, "total": sum(image_bytes.values())}
        if sizes.metrics is not None:
            document["added_by_metrics"] = sizes.metrics.bytes
        print(json.dumps(document))
        if args.record:
            if args.function or model is None or args.previous is not None:
                sys.exit("--record writes the sizes of all functions, with one model")
            IMAGES.write_bytes(msgspec.json.format(msgspec.json.encode(sizes), indent=1) + b"\n")


if __name__ == "__main__":
    main()
