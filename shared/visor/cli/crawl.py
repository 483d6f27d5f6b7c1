"""`visor crawl`: read a source and publish what changed."""

from __future__ import annotations

import click

from visor.console import as_json, print_json, say
from visor.schema.items import Change
from visor.settings import Settings


@click.command("crawl")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would be published, and publish nothing.")
@click.option("--limit", type=click.IntRange(1), help="Stop after about this many items.")
@click.option("--confirm-loss", is_flag=True, help="Delete what is gone even if it is most of the catalogue.")
@as_json
def crawl_command(name: str, dry_run: bool, limit: int | None, confirm_loss: bool, as_json: bool) -> None:
    """Crawl the source NAME of visor.toml."""
    from visor.app import Assembly

    def show(change: Change) -> None:
        click.echo(f"{change.action:6}  {change.item.id}  {change.item.title}  {change.item.image_url}")

    assembly = Assembly(Settings.read())
    on_change = show if dry_run and not as_json else None
    plan = assembly.configuration.entry(name).common
    run = assembly.crawl(
        assembly.named_source(name),
        dry_run=dry_run,
        limit=limit or plan.limit,
        budget_s=plan.budget_s,
        confirm_loss=confirm_loss,
        on_change=on_change,
    )
    if as_json:
        print_json(run)
    else:
        say(
            f"{run.state}: {run.seen} seen, {run.published} to embed, {run.updated} changed, {run.deleted} gone, "
            f"{run.unchanged} unchanged, {run.failed} failed"
        )
        for reason, count in run.failures.items():
            say(f"{count} rows: {reason}")
        for sample in run.why.split(" | ") if run.why else ():
            say(f"  {sample}")
