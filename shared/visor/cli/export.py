"""`visor export`: the index as a folder of files, for any server of static files."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from visor.console import GivenPath, as_json, print_json, progress, say
from visor.schema.words import counted
from visor.settings import Settings


@click.command("export")
@click.argument("folder", type=GivenPath(file_okay=False))
@click.option("--title", default="Visor", show_default=True, help="What the page is called.")
@click.option(
    "--originals",
    is_flag=True,
    help="Copy the pictures of local folders, too, with all that is in the files, such as where they were taken.",
)
@as_json
def export_command(folder: Path, title: str, originals: bool, as_json: bool) -> None:
    """Write the page, the model and the index into FOLDER. Any static file server can serve it; nothing else runs.

    A second run writes what changed. Pictures that have no web address get a small copy.
    """
    from visor.app import App
    from visor.export.export import site_in
    from visor.storage import existing

    with App(existing(Settings.read())) as app:
        exporter = app.exporter({"title": title}, originals=originals)
        with site_in(folder) as site, progress("Exported", exporter.snapshot.images) as advance:
            report = exporter.write(site, now=time.time(), advance=advance)
    if as_json:
        print_json(report)
        return
    sizes = {name: f"{size / 1e6:,.1f} MB" for name, size in report.bytes.items()}
    if report.lost:
        say(f"{counted(report.lost, 'picture')} could not be read and will not be shown")
    if report.unknown:
        say(f"{counted(report.unknown, 'item')} will not be shown: unsafe, or without a document (see `visor check`)")
    say(f"{counted(report.images, 'image')}: {report.written:,} files written, {report.written_bytes / 1e6:,.1f} MB")
    say(
        f"A first visit loads {sizes['first_visit']} of the index and {sizes['model']} of the model; the whole index "
        f"is {sizes['index']}, its items {sizes['pages']}, pictures {sizes['pictures']}"
    )
    say(f"Try it: python -m http.server -d {shlex.quote(str(folder))}")
