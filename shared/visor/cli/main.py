"""The command line `visor`. Each command lives in its own module under `visor.cli`, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import click

from visor import __version__
from visor.errors import VisorError

COMMANDS = {
    "compact": "Merge shards and small segments into larger segments.",
    "cost": "What a plan would use of the free tier, service by service.",
    "crawl": "Read a source and publish what changed.",
    "demo": "Crawl, embed and serve the demo shop on this machine.",
    "deploy": "Put Visor on Google Cloud, within the free tier.",
    "dlq": "List and retry what could not be processed.",
    "doctor": "What is installed, which weights and backends answer, and what to do about what is missing.",
    "eval": "Measure how well a labelled folder is found.",
    "feedback": "What searchers called no match.",
    "index": "Read a folder or source, embed its pictures and make them searchable.",
    "links": "Ask whether pictures and pages are still there, and mend what is not.",
    "model": "List, build and show models.",
    "reindex": "Embed all items anew with another model, while searches go on.",
    "search": "Search the index for a picture.",
    "serve": "Answer searches over HTTP and show the page.",
    "source": "List kinds of sources, and start a new one.",
    "sources": "How each source is doing: last run, next run, yield and failures.",
    "stats": "What the index holds.",
}
"""Name of each command and its one line of help; `visor.cli.NAME` holds a click command of the same name."""


PLUGINS = "visor.commands"
"""Entry-point group of click commands that other packages add."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, so that `visor search` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"visor.cli.{cmd_name}")
            command = getattr(module, cmd_name + "_command")
        else:
            command = next((found.load() for found in entry_points(group=PLUGINS, name=cmd_name)), None)
        assert command is None or isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))
        if plugins := entry_points(group=PLUGINS):
            with formatter.section("Commands of other packages"):
                formatter.write_dl(sorted((found.name, found.load().get_short_help_str()) for found in plugins))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="visor")
def cli() -> None:
    """Reverse image search that runs on a laptop, or on Google Cloud for $0 a month."""


def main(argv: list[str] | None = None) -> Any:
    """Run the command line. A `VisorError` becomes one line on standard error and exit status 1."""
    try:
        return cli.main(args=argv, prog_name="visor")
    except VisorError as exc:
        click.echo(f"visor: {exc}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
