"""`visor cost`: what a plan would use of the free tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import as_json, print_json
from visor.deploy.deployed import deployed_plan
from visor.free_tier.allowances import allowances, counted
from visor.free_tier.cost_model import ENOUGH, Line, UsagePlan, first_limit, first_load_days, growth_limits, lines

TERRAFORM = Path("terraform")
NAMES = {bool: click.BOOL, int: click.IntRange(0), float: click.FloatRange(0)}


def plan_options(command: Any) -> Any:
    """One option for each field of a plan."""
    for field in reversed(msgspec.structs.fields(UsagePlan)):
        kind = type(field.default)
        option = "--" + field.name.replace("_", "-")
        command = click.option(option, field.name, type=NAMES[kind], show_default=str(field.default))(command)
    return command


@click.command("cost")
@plan_options
@click.option("--terraform", type=click.Path(path_type=Path), default=TERRAFORM, help="Folder with what is deployed.")
@click.option("--explain", is_flag=True, help="Show the arithmetic, and where each figure comes from.")
@click.option("--fit", "fits", is_flag=True, help="How many images and searches fit, and what they meet first.")
@click.option("--share", type=click.FloatRange(0.01, 1), default=1.0, show_default=True, help="--fit into this share.")
@as_json
def cost_command(terraform: Path, explain: bool, fits: bool, share: float, as_json: bool, **given: Any) -> None:
    """What a plan would use of the free tier, service by service. Defaults are what terraform/ would deploy."""
    changes = {name: value for name, value in given.items() if value is not None}
    plan = msgspec.structs.replace(deployed_plan(terraform), **changes)
    _check(plan)
    found = lines(plan)
    worst, load = first_limit(found), first_load_days(plan, share=0.9)
    document: dict[str, Any] = {
        "plan": plan,
        "lines": found,
        "first_limit": {"service": worst.service, "metric": worst.metric, "share": worst.share},
        "free": all(line.share <= 1 for line in found),
        "first_load_days": load,
        "looked_up": allowances().looked_up,
    }
    if fits:
        document["fit"] = growth_limits(plan, share=share)
    if as_json:
        print_json(document)
        return
    click.echo(f"{plan.images:,} images, {plan.churn:.0%} changed every {plan.recrawl_days:g} days, ")
    click.echo(f"{plan.searches_a_day:,.0f} searches and {plan.visits_a_day:,.0f} first visits of the page a day\n")
    _table(found, explain=explain)
    _verdict(found, worst, load)
    for one in document.get("fit", []):
        click.echo(f"{one.largest:>12,}  {one.what}; more meets {one.limit}")
    if explain:
        _sources()


def _check(plan: UsagePlan) -> None:
    periods = (plan.recrawl_days, plan.active_hours, plan.freshness_s)
    if min(periods) <= 0 or plan.batch_size < 1 or plan.churn > 1:
        raise click.UsageError(
            "A re-crawl period, a batch, the active hours and the freshness are more than 0, "
            "and churn is a share of at most 1."
        )


def _table(found: list[Line], *, explain: bool) -> None:
    click.echo(f"{'service':18} {'metric':20} {'used':>12} {'free':>12} {'':11} {'share':>7}")
    for line in found:
        per = {"always": line.unit, "day": f"{line.unit}/day", "month": line.unit}[line.per][:11]
        mark = "  over" if line.share > 1 else "  close" if line.share > ENOUGH else ""
        used, free = _number(line.used), _number(line.free)
        click.echo(f"{line.service:18} {line.metric:20} {used:>12} {free:>12} {per:11} {line.share:>7.1%}{mark}")
        if explain:
            click.echo(f"    = {line.arithmetic}")


def _verdict(found: list[Line], worst: Line, load: float) -> None:
    over = [line for line in found if line.share > 1]
    tight = max(line.share for line in found)
    if over:
        click.echo("\nNot free: " + ", ".join(f"{line.service} {line.metric} at {line.share:.0%}" for line in over))
    else:
        click.echo(f"\nFree in every service, with {1 - tight:.0%} to spare where it is tightest.")
    click.echo(f"Growth meets first: {worst.service}, {worst.metric} ({worst.share:.0%} used).")
    click.echo(f"The first crawl of everything takes {load:.1f} days, because Firestore's free documents are a day's.")


def _sources() -> None:
    free = allowances()
    click.echo(f"\nAllowances, looked up on {free.looked_up}:")
    for one in free.allowances:
        note = f" ({one.note})" if one.note else ""
        click.echo(f"  {one.service} {one.metric}: {one.free:,g} {one.unit}{note} [{one.read}] {one.title}, {one.url}")
    click.echo("\nCounts for a thousand:")
    for name, operation in counted().operations.items():
        for resource, figure in operation.counts.items():
            click.echo(f"  {name} {resource}: {figure.value:,g} ({figure.basis}: {figure.why})")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
