"""`visor links`: ask whether pictures and pages are still there."""

from __future__ import annotations

import click

from visor.console import as_json, print_json, say
from visor.settings import Settings


@click.command("links")
@click.option("--limit", type=click.IntRange(1), help="Look at so many items now, instead of what is left of today's.")
@click.option("--budget-s", type=float, help="Begin nothing new after so many seconds.")
@as_json
def links_command(limit: int | None, budget_s: float | None, as_json: bool) -> None:
    """Look at some items' pictures and pages: replace what died, follow what moved. The crawl function does it, too."""
    from visor.app import Assembly

    with Assembly(Settings.read()) as assembly:
        report = assembly.check_links(limit=limit, budget_s=budget_s)
    if as_json:
        print_json(report)
        return
    say(
        f"{report.checked} items looked at: {report.moved} moved, {report.replaced} pictures replaced by a copy, "
        f"{report.marked} shown without their picture, {report.gone} gone, {report.back} back, {report.suspect} suspect"
    )
    if report.frames:
        say(f"{report.frames} frames that no item shows were deleted")
    if not report.finished:
        say("The time ended first: run it again to go on")
