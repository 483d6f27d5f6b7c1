"""The command line `visor`. The modules of `visor.cli` are imported when one of their commands is called."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from errno import EDQUOT, EIO, ENOSPC, EROFS
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from typing import Any

import click

from visor import __version__
from visor.errors import SettingsError, VisorError
from visor.plugins import load

COMMANDS = {
    "backup": ("serve", "Copy the index into a file while it is in use."),
    "bulk": ("bulk", "Embed a whole catalogue with many workers, on Apache Beam."),
    "check": ("doctor", "Read every part of the index, and repair what is damaged."),
    "compact": ("index", "Merge shards and small segments into larger segments."),
    "compare": ("search", "Show what two pictures have in common."),
    "cost": ("cost", "Show how much of the free tier a plan would use, service by service."),
    "crawl": ("crawl", "Read a source and publish what changed."),
    "demo": ("serve", "Crawl, embed and serve the demo shop on this machine."),
    "deploy": ("deploy", "Put Visor on Google Cloud, within the free tier."),
    "destroy": ("deploy", "Remove what `visor deploy` made, with all data."),
    "dlq": ("crawl", "List and retry batches that could not be processed."),
    "doctor": ("doctor", "Check what is installed, and say how to install what is missing."),
    "engine": ("index", "Move the index to a vector engine, or back to segments."),
    "eval": ("model", "Measure how well the images of a labelled folder are found."),
    "export": ("export", "Write the index as a site that needs no server."),
    "failures": ("index", "List the items that could not be embedded, and try them again."),
    "feedback": ("search", "Show, accept or reject what searchers said."),
    "index": ("index", "Read a folder or source, embed its images and make them searchable."),
    "links": ("crawl", "Check whether images and pages still exist, and replace those that do not."),
    "model": ("model", "List, build and show models."),
    "reindex": ("index", "Embed all items again with another model, while searches continue."),
    "restore": ("serve", "Make an index from a backup."),
    "search": ("search", "Search the index for images and words."),
    "serve": ("serve", "Serve the page and the HTTP API."),
    "source": ("sources", "List kinds of sources, and start a new one."),
    "sources": ("sources", "Show how each source is doing: last run, next run, yield and failures."),
    "stats": ("stats", "Show what the index holds."),
}
"""By command: the module of `visor.cli` that has it, as `NAME_command`, and its line of help."""
INTERRUPTED = 130
"""Exit status after control-C, as of a program that the signal ends: 128 + SIGINT."""
DISK = (ENOSPC, EDQUOT, EROFS, EIO)
PLUGINS = "visor.commands"
"""Entry-point group of click commands that other packages add."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `visor search` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"visor.cli.{COMMANDS[cmd_name][0]}")
            command = getattr(module, cmd_name + "_command")
        else:
            command = next((_plugin(found) for found in entry_points(group=PLUGINS, name=cmd_name)), None)
        assert command is None or isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # of which click would make the status of a failure
            click.echo("Interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        if plugins := entry_points(group=PLUGINS):
            with formatter.section("Commands of other packages"):
                formatter.write_dl(sorted((found.name, _help_of(found)) for found in plugins))


def _plugin(entry: EntryPoint) -> click.Command:
    """The command of another package. Raises `SettingsError` if it cannot be loaded or is none."""
    command = load(entry, "command")
    if not isinstance(command, click.Command):
        found = f"The command {entry.name!r} is a {type(command).__name__}: {entry.value}"
        raise SettingsError(found, valid="A click.Command", remedy="Tell the author of its package, or uninstall it")
    return command


def _help_of(entry: EntryPoint) -> str:
    try:
        return _plugin(entry).get_short_help_str()
    except SettingsError as exc:
        return exc.found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="visor")
def cli() -> None:
    """Reverse image search that runs on a laptop, or on Google Cloud for $0 a month."""


def main(argv: list[str] | None = None) -> Any:
    """Run the command line. An error of Visor's or of a file becomes one line on standard error, exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # of a character that the terminal does not have comes a `?`
    try:
        return cli.main(args=argv, prog_name="visor")
    except VisorError as exc:
        click.echo(f"visor: {exc}", err=True)
    except OSError as exc:
        if exc.filename is None and exc.errno not in DISK and not isinstance(exc, shutil.Error):
            raise
        found = f"{os.fsdecode(exc.filename or 'A file')} cannot be used: {exc.strerror or exc}"
        valid = "A path in a folder that exists, that this user may use, on a disk with free space"
        click.echo(f"visor: {VisorError(found, valid=valid, remedy='Correct it, or make room')}", err=True)
    sys.exit(1)
