"""`visor compact`: merge shards and small segments now."""

from __future__ import annotations

import click
import msgspec

from visor.settings import Settings


@click.command("compact")
@click.option("--budget-s", type=float, help="Start no new step after so many seconds; the next run goes on.")
@click.option("--relearn", is_flag=True, help="Learn the projection anew even if the index has not grown enough.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
def compact_command(budget_s: float | None, relearn: bool, as_json: bool) -> None:
    """Merge shards and small segments into larger segments."""
    from visor.app import Assembly

    report = Assembly(Settings.read()).merge(
        budget_s=budget_s,
        relearn=relearn,
        progress=lambda line: click.echo(line, err=True),
    )
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{report.images} images in {report.segments} segments; {report.commits} commits taken up")
    for what in report.unreadable:
        click.echo(f"Left where it is: {what}", err=True)
    if not report.finished:
        click.echo("The time ended first: run it again to go on", err=True)
