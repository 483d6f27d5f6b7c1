"""Put the built page into the site bucket, with the endpoint in its config.json, the right types and cache headers.

    python scripts/publish.py frontend/dist gs://BUCKET --endpoint URL [--config JSON] [--model DIR] [--dry-run]
    python scripts/publish.py frontend/dist run://PROJECT/REGION/SERVICE --endpoint URL

Browsers keep files with a hash in their name for ever; they request index.html and config.json again, so that a new
page is seen at once. Files that name others are uploaded last, so that no visitor sees half a page. A service that
serves the page itself is opened to the public by switching its invoker check off, without allUsers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HASHED = re.compile(r"-[A-Za-z0-9_-]{8,}\.\w+$")
FOR_EVER = "public, max-age=31536000, immutable"
A_DAY = "public, max-age=86400"
ANEW = "no-cache"
MODELS = Path(__file__).parents[1] / "build" / "bundles" / "search" / "models"
LAST = ("config.json", "index.html")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


def write_config(dist: Path, endpoint: str, said: dict[str, Any] | None = None) -> None:
    """Put the endpoint and the owner's settings of the page into its config.json, and leave the rest as it is."""
    parts = urlsplit(endpoint)
    if parts.scheme != "https" or not parts.hostname or parts.query:
        sys.exit(f"{endpoint!r} is not an endpoint: one looks like https://visor-search-….run.app")
    path = dist / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({**config, **(said or {}), "endpoint": endpoint.rstrip("/")}, indent=2) + "\n", encoding="utf-8"
    )


def uploads(dist: Path, bucket: str) -> Iterator[list[str]]:
    """One `gcloud` call for each kind of file, in the order in which they may be seen."""
    groups: dict[tuple[int, str, str], list[str]] = {}
    for path in sorted(p for p in dist.rglob("*") if p.is_file()):
        name = path.relative_to(dist).as_posix()
        if path.suffix not in TYPES:
            sys.exit(f"{name} has no known content type; add {path.suffix!r} to TYPES in {Path(__file__).name}")
        order = 1 + LAST.index(name) if name in LAST else 0
        cache = ANEW if name in LAST else FOR_EVER if HASHED.search(name) else A_DAY
        folder = path.relative_to(dist).parent.as_posix()
        target = bucket + ("/" if folder == "." else f"/{folder}/")
        groups.setdefault((order, TYPES[path.suffix], f"{cache}\n{target}"), []).append(str(path))
    for (_, type_, rest), paths in sorted(groups.items()):
        cache, target = rest.split("\n")
        yield ["gcloud", "storage", "cp", f"--content-type={type_}", f"--cache-control={cache}", *paths, target]


def model_uploads(models: Path, folder: str) -> Iterator[list[str]]:
    """One `gcloud` call for each network of the bundled models, under the name by which devices request it. It is sent
    compressed, and browsers unpack it."""
    manifests = sorted(models.glob("*/model.json"))
    if not manifests:
        sys.exit(f"{models} holds no model. Run `visor deploy`, which bundles it, or name one with --models.")
    for manifest in manifests:
        for file in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
            path = manifest.with_name(file["file"])
            if path.suffix == ".tflite":
                how = ["--content-type=application/octet-stream", f"--cache-control={FOR_EVER}", "--no-clobber"]
                target = f"{folder}{file['sha256']}.tflite"
                yield ["gcloud", "storage", "cp", *how, "--gzip-local-all", str(path), target]


def models_folder(config: dict[str, Any], bucket: str) -> str | None:
    """Where devices look for the model: next to a published index, or where the page's settings say; None: not in this
    bucket."""
    if "export" in config:
        return f"{bucket}/data/"
    models = config.get("models", "")
    return f"{bucket}/{models.removeprefix('./')}" if models.startswith("./") else None


def _status(command: list[str]) -> int:
    try:
        return subprocess.run(command).returncode
    except FileNotFoundError:
        sys.exit("gcloud is not installed, or not on PATH: install the Google Cloud CLI")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("bucket", help="gs://NAME, or run://PROJECT/REGION/SERVICE")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--config", type=json.loads, default={}, help="title, tagline, language and notes, as JSON")
    parser.add_argument("--models", type=Path, default=MODELS, help="models that devices run (default: as bundled)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    args = parser.parse_args()
    if not (args.dist / "index.html").is_file():
        sys.exit(f"{args.dist} holds no built page. Run `npm ci && npm run build` in frontend/.")
    if service := re.fullmatch(r"run://([^/]+)/([^/]+)/([^/]+)", args.bucket):
        project, region, name = service.groups()
        where = [f"--region={region}", f"--project={project}", "--quiet"]
        commands = [["gcloud", "run", "services", "update", name, "--no-invoker-iam-check", *where]]
    elif args.bucket.startswith("gs://"):
        write_config(args.dist, args.endpoint, args.config)
        bucket = args.bucket.rstrip("/")
        commands = list(uploads(args.dist, bucket))
        if folder := models_folder(args.config, bucket):
            commands[:0] = model_uploads(args.models, folder)
    else:
        sys.exit(f"{args.bucket!r} is neither a bucket (gs://NAME) nor a service (run://PROJECT/REGION/SERVICE)")
    for command in commands:
        print(" ".join(command), flush=True)
        if not args.dry_run and (status := _status(command)):
            sys.exit(
                f"`{' '.join(command[:4])}` failed with status {status}; its own message is above. "
                "Correct what it names and publish again."
            )


if __name__ == "__main__":
    main()
