"""`visor source`: the kinds of sources that are installed, and a start for a new one."""

from __future__ import annotations

from pathlib import Path

import click

from visor.console import as_json, print_json


@click.group("source")
def source_command() -> None:
    """List kinds of sources, and start a new one."""


@source_command.command("list")
@as_json
def list_kinds(as_json: bool) -> None:
    """Show each kind of source that is installed, and the package that brings it."""
    from visor.sources.registry import kinds

    found = {name: entry.dist.name if entry.dist else "" for name, entry in kinds().items()}
    if as_json:
        print_json(found)
        return
    for name, package in found.items():
        click.echo(f"{name:12} {package}")


@source_command.command("new")
@click.argument("kind")
@click.option("--folder", default=".", type=click.Path(path_type=Path), help="Where the package is written.")
def new(kind: str, folder: Path) -> None:
    """Write a package with a new source KIND, which works at once and is then changed."""
    from visor.sources.scaffold import write_source_package

    package = write_source_package(kind, folder)
    click.echo(f"Wrote {package}. Next: cd {package} && pip install -e '.[test]' && pytest")
