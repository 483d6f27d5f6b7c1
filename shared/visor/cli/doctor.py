"""`visor doctor`: what is installed, which weights and backends work, and how to get what is missing."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import click

from visor.console import as_json, print_json
from visor.errors import CorruptObject, VisorError
from visor.schema.collections import ITEMS
from visor.schema.items import Record
from visor.settings import Settings

BUILD = "Only if `visor model build` needs it, up to Python 3.13: pip install 'visor-search[build]'"


class InstallCheck(Record, frozen=True, kw_only=True):
    """One check. `missing`: Visor cannot run here; `absent`: only the feature that the remedy names cannot."""

    what: str
    state: Literal["ok", "absent", "missing"]
    found: str
    remedy: str = ""


@click.command("doctor")
@as_json
def doctor_command(as_json: bool) -> None:
    """Check this installation. Exit status 1 if something that Visor needs is missing."""
    findings = list(look())
    if as_json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            mark = {"ok": "✓", "absent": "–", "missing": "✗"}[finding.state]
            click.echo(f"{mark} {finding.what}: {finding.found}")
            if finding.remedy:
                click.echo(f"    {finding.remedy}")
    sys.exit(any(finding.state == "missing" for finding in findings))


@click.command("check")
@click.option("--repair", is_flag=True, help="Do what each line says, embed what needs it, and merge.")
@as_json
def check_command(repair: bool, as_json: bool) -> None:
    """Read every object and document of the index, and say what is damaged or missing and what to do.

    Exit status 1 if something is wrong, or still is after --repair. A repair names every item that it could not bring
    back. On Google Cloud it costs a read for each document, and the embed function does the embedding.
    """
    from visor.app import App
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        report = app.check(repair=repair)
    if as_json:
        print_json(report)
    else:
        for damage in report.found:
            click.echo(f"✗ {damage.found}\n    {'Done: ' if repair else ''}{damage.remedy}")
        for damage in report.left if repair else ():
            click.echo(f"✗ still: {damage.found}\n    {damage.remedy}")
        for item, why in report.lost.items():
            click.echo(f"– lost: item {item}: {why}")
        if not report.found:
            click.echo("✓ Every object and document of the index is there and readable")
        elif not repair:
            click.echo("`visor check --repair` does all this")
    sys.exit(bool(report.left))


def look() -> Iterator[InstallCheck]:
    """All checks that change nothing."""
    yield InstallCheck(what="Python", state="ok", found=platform.python_version())
    for package in ("ai-edge-litert", "faiss-cpu", "numpy", "pillow", "pillow-heif", "scipy"):
        yield _package(package, "missing", "Install Visor again: make setup")
    yield InstallCheck(what="SQLite", state="ok", found=sqlite3.sqlite_version)
    yield _package("google-cloud-firestore", "absent", "Only for VISOR_BACKEND=gcp: pip install 'visor-search[gcp]'")
    yield _package("pymilvus", "absent", "Only for VISOR_ENGINE=milvus: pip install 'visor-search[milvus]'")
    yield _package("pgvector", "absent", "Only for VISOR_ENGINE=pgvector: pip install 'visor-search[pgvector]'")
    yield _tool("node", "Only for building the page: install Node 20 or newer", "--version")
    yield _tool("gcloud", "Only for deploying and for the emulators: install the Google Cloud CLI", "--version")
    yield _tool("java", "Only for the Firestore and Pub/Sub emulators: install Java 11 or newer", "-version")
    yield _tool("terraform", "Only for deploying: install Terraform", "version")
    from visor.storage import is_there

    try:
        settings = Settings.read()
    except VisorError as exc:
        yield InstallCheck(what="settings", state="missing", found=exc.found, remedy=exc.remedy)
        return
    yield InstallCheck(what="settings", state="ok", found=f"backend {settings.backend}, home {settings.home}")
    yield (model := _try("model", lambda: _model(settings)))
    cpu = (sys.platform, platform.machine()) == ("linux", "x86_64")
    tensorflow = _package("tensorflow-cpu" if cpu else "tensorflow", "absent", BUILD)
    if tensorflow.state == "ok" or model.state != "ok":
        yield tensorflow
    yield _try(f"stores ({settings.backend})", lambda: _stores(settings))
    if settings.engine != "segments":
        yield _try(f"engine ({settings.engine})", lambda: _engine(settings))
    if settings.backend == "local" and is_there(settings):
        yield _try("index", lambda: _index(settings))


def _package(name: str, otherwise: Literal["absent", "missing"], remedy: str) -> InstallCheck:
    try:
        return InstallCheck(what=name, state="ok", found=version(name))
    except PackageNotFoundError:
        return InstallCheck(what=name, state=otherwise, found="not installed", remedy=remedy)


def _tool(name: str, remedy: str, flag: str) -> InstallCheck:
    path = shutil.which(name)
    if path is None:
        return InstallCheck(what=name, state="absent", found="not installed", remedy=remedy)
    try:
        run = subprocess.run([path, flag], capture_output=True, text=True, errors="replace", timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as exc:
        return InstallCheck(what=name, state="absent", found=f"{path} does not run: {exc}", remedy=remedy)
    lines = [*(run.stdout or run.stderr).strip().splitlines(), path]
    if run.returncode:  # such as the `java` of macOS, which only says where to get one
        found = f"{path} ends with status {run.returncode}: {lines[0]}"
        return InstallCheck(what=name, state="absent", found=found, remedy=remedy)
    return InstallCheck(what=name, state="ok", found=lines[0])


def _try(what: str, look_at: Callable[[], str]) -> InstallCheck:
    try:
        return InstallCheck(what=what, state="ok", found=look_at())
    except VisorError as exc:
        return InstallCheck(what=what, state="missing", found=exc.found, remedy=exc.remedy or exc.valid)


def _model(settings: Settings) -> str:
    from visor.models.embedder import load_embedder

    embedder = load_embedder(settings)
    embedder.check_files()
    return f"{embedder.description.name}, {embedder.dimension} numbers, fingerprint {embedder.fingerprint[:12]}"


def _engine(settings: Settings) -> str:
    from contextlib import closing

    from visor.storage.engine import open_engine

    with closing(open_engine(settings)) as engine:
        return f"it answers; collections of this index: {', '.join(engine.collections()) or 'none yet'}"


def _index(settings: Settings) -> str:
    from visor.app import App

    with App(settings) as app:
        found = app.check().found
    if found:
        raise CorruptObject("; ".join(damage.found for damage in found), remedy="Run `visor check --repair`")
    return "every object and document is there and readable"


def _stores(settings: Settings) -> str:
    from visor.index.format.manifest import MANIFESTS
    from visor.storage import is_there, open_stores

    if not is_there(settings):
        return f"no index '{settings.index}' yet"
    stores = open_stores(settings)
    index = "a manifest" if next(iter(stores.objects.list(MANIFESTS)), None) else "no manifest yet"
    stores.documents.get(ITEMS, ["0" * 32])
    return f"objects, documents and queue answer; {index}; batches waiting: {stores.queue.waiting():,}"
