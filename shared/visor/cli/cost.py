"""`visor cost`: how much of the free tier a plan would use."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import GivenPath, Number, as_json, print_json, say
from visor.deploy.plan import deployed_plan
from visor.errors import VisorError
from visor.free_tier.allowances import allowances, counted
from visor.free_tier.cost_model import ENOUGH, GIB, Line, UsagePlan, first_limit, lines
from visor.free_tier.growth import (
    DeviceUse,
    cost,
    device_use,
    first_load_bytes,
    first_load_days,
    first_load_days_for,
    growth_limits,
    roomy,
    search_size,
)
from visor.models.store import model_directory, read_manifest
from visor.settings import Settings

TERRAFORM = Path("terraform")
MODELS_FROM = click.Choice(["function", "bucket", "elsewhere"])
TYPES = {bool: click.BOOL, int: click.IntRange(0), float: Number(0), str: MODELS_FROM}
PLAN_MAX = 1e15
"""The greatest number in a plan: what is counted of it stays exact."""
HELP = {
    "images": "Images in the index.",
    "recrawl_days": "Days between two crawls of everything.",
    "churn": "Share of the images that a crawl finds new or changed.",
    "searches_a_day": "Searches a day.",
    "active_hours": "Hours of a day over which the searches are spread.",
    "freshness_s": "Seconds after which a search instance looks for new items.",
    "explained": "Share of the searches after which a match is explained.",
    "visits_a_day": "People a day who open the page for the first time.",
    "returns_a_day": "Visits a day of people who opened the page before.",
    "device": "Share of the searches whose picture the visitor's own device embeds.",
    "models_from": "Where a device downloads the model from, at its first visit.",
    "publish": "Whether merges publish the index, which the page then searches by itself.",
    "page_from_function": "Whether the search function serves the page (public = function).",
    "sources": "Sources that are crawled.",
    "links_a_day": "Items a day whose image and page are checked.",
    "batch_size": "Items in a Pub/Sub message.",
    "crawl_runs_a_day": "Runs of the crawl function a day.",
    "compact_runs_a_day": "Runs of the compact function a day.",
    "deployments_a_month": "Deployments a month.",
    "vector_numbers": "Dimension of the model's vectors. This and the next three default to the model built here.",
    "model_bytes": "Size of the model's files; 0: the default model's.",
    "onnx": "Whether the model runs on ONNX Runtime.",
    "words": "Whether the model reads words.",
    "embed_instances": "Maximum number of instances of the embed function.",
    "search_instances": "Maximum number of instances of the search function.",
    "owner_key": "Whether there is an owner's key, a secret.",
    "switch": "Whether a budget closes the endpoint, which needs one more function.",
    "site_sources": "Whether there is a source of kind site, whose libraries are then deployed.",
    "bucket_sources": "Whether there is a source of kind bucket.",
    "metrics": "Whether searches may use SciPy's metrics, whose library is then deployed.",
    "video_sources": "Whether there is a source of kind video.",
} | {
    f"{function}_{size}": f"{words} of the {function} function."
    for function in ("crawl", "embed", "compact", "search")
    for size, words in (("cpu", "vCPUs"), ("memory_gib", "Memory in GiB"))
}


def plan_options(command: Any) -> Any:
    """One option for each field of a plan."""
    for field in reversed(msgspec.structs.fields(UsagePlan)):
        default = str(field.default).lower()
        command = click.option(
            "--" + field.name.replace("_", "-"),
            field.name,
            type=TYPES[type(field.default)],
            help=f"{HELP[field.name]} [default: {default}]",
        )(command)
    return command


def built_model(settings: Settings) -> dict[str, Any]:
    """The fields of a plan that depend on the settings' model; empty if it is not built here."""
    try:
        manifest = read_manifest(model_directory(settings, settings.model))
    except VisorError:
        return {}
    return {
        "vector_numbers": manifest.description.dimension,
        "model_bytes": sum(file.size_bytes for file in manifest.files),
        **{extra: extra in manifest.description.extras for extra in ("onnx", "words")},
    }


@click.command("cost")
@plan_options
@click.option("--terraform", type=GivenPath(), default=TERRAFORM, help="Folder with the Terraform files.")
@click.option("--explain", is_flag=True, help="Show the arithmetic, and where each figure comes from.")
@click.option("--fit", "fits", is_flag=True, help="How many images and searches fit, and which limit comes first.")
@click.option("--measured", "project", metavar="PROJECT", help="Also show what a deployed project has used (gcloud).")
@click.option("--days", type=click.IntRange(1, 42), default=7, show_default=True, help="Days that --measured reads.")
@click.option("--budget", type=Number(0), help="What a sum a month buys, in the currency of VISOR_BUDGET.")
@click.option("--share", type=Number(0.01, 1), default=1.0, show_default=True, help="Share that --fit may use.")
@as_json
def cost_command(
    terraform: Path,
    explain: bool,
    fits: bool,
    project: str | None,
    days: int,
    budget: float | None,
    share: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Show how much of the free tier a plan would use, and what the rest costs.

    Defaults are what terraform/ would deploy.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    settings = Settings.read()
    plan = msgspec.structs.replace(deployed_plan(terraform), **(built_model(settings) | changes))
    _check(plan)
    asked = budget is not None or settings.budget > 0
    budget = settings.budget if budget is None else budget
    if budget or cost(plan):
        plan = roomy(plan)
    found = [msgspec.structs.replace(line, cost=line.cost * settings.budget_dollar) for line in lines(plan)]
    worst, load = first_limit(found), first_load_days(plan, share=0.9)
    document: dict[str, Any] = {
        "plan": plan,
        "lines": found,
        "first_limit": {"service": worst.service, "metric": worst.metric, "share": worst.share},
        "free": all(line.share <= 1 for line in found),
        "cost": sum(line.cost for line in found),
        "held": search_size(plan) is not None,
        "first_load_days": load,
        "first_load_bytes": first_load_bytes(plan),
        "looked_up": allowances().looked_up,
    }
    if asked:
        document |= bought(plan, settings, budget, load)
        document["next"] = bought(plan, settings, budget + 1, load)
    if fits:
        document["fit"] = growth_limits(plan, share=share)
    if plan.device:
        document["device"] = device_use(plan, share=share)
    real: dict[tuple[str, str], float] = {}
    if project is not None:
        from visor.deploy.measured import measured

        document["measured"] = measured(project, days=days, say=say)
        real = {(one.service, one.metric): one.used for one in document["measured"]}
    if as_json:
        print_json(document)
        return
    click.echo(f"Images: {plan.images:,}, {plan.churn:.0%} changed every {plan.recrawl_days:g} days,")
    click.echo(f"{plan.searches_a_day:,.0f} searches and {plan.visits_a_day:,.0f} first visits of the page a day\n")
    _table(found, explain=explain, real=real)
    _verdict(found, worst, load, paid=bool(budget))
    if past := [line for line in found if real.get((line.service, line.metric), 0.0) > line.free]:
        click.echo("But measured use exceeds what is free: " + ", ".join(f"{one.service} {one.metric}" for one in past))
    if found_cost := document["cost"]:
        click.echo(f"Use that is not free costs {found_cost:,.2f} a month.")
    if not document["held"]:
        click.echo("No function holds so many images; this assumes the largest one. See docs/scale.md.")
    for one in (document, document["next"]) if asked else ():
        growth = f"{one['images']:,} images, or {one['searches_a_day']:,} searches a day"
        days = one["first_load_days"]
        first = "but not this plan" if days is None else f"and a first crawl in {days:.1f} days"
        click.echo(f"{one['budget']:,.2f} a month buy {growth}, {first}.")
    sent = first_load_bytes(plan) / GIB
    click.echo(f"The first crawl sends {sent:.2f} GiB of requests in all, as data out of Cloud Run in that month.")
    for one in document.get("fit", []):
        click.echo(f"{one.largest:>12,}  {one.what}; the next limit is {one.limit}")
    if plan.device:
        _tell_device(document["device"])
    if explain:
        _sources()


def _tell_device(use: DeviceUse) -> None:
    """How many searches fit if devices embed the pictures, and whether the model itself is the tighter limit."""
    size = f"{use.model_bytes / 1e6:.1f} MB"
    click.echo(
        f"\nIf devices embed the pictures, {use.searches_a_day:,} searches a day fit (visits as planned; the next "
        f"limit is {use.limit}), against {use.today:,} if the function embeds all of them."
    )
    if not use.allowance:
        click.echo(f"Each first visit downloads {size} of model, from elsewhere.")
        return
    click.echo(
        f"Each first visit downloads {size} of model, from {use.allowance}: {use.downloads_a_month:,} a month fit, "
        f"{use.planned:,} are planned."
    )
    if use.planned > use.downloads_a_month:
        click.echo(
            "That is the tighter limit. Later visitors send the picture, as before. The key `models` of the "
            "page's config.json may name another address that serves the files (docs/http.md)."
        )


def bought(plan: UsagePlan, settings: Settings, budget: float, free_days: float) -> dict[str, Any]:
    """How far a plan can grow for a sum a month: images, or searches a day, with all else as planned. The days of its
    first load are None if the sum does not pay for it, and `free_days` if there is no sum."""
    dollars = budget / settings.budget_dollar
    limits = {one.what: one.largest for one in growth_limits(plan, budget=dollars)}
    polite = plan.images / (settings.host_requests_a_day * max(1, plan.sources)) if settings.host_requests_a_day else 0
    days = max(polite, first_load_days_for(plan, dollars)) if budget else free_days
    return {
        "budget": budget,
        "images": limits["images"],
        "searches_a_day": limits["searches a day, visits in proportion"],
        "first_load_days": days if math.isfinite(days) else None,
    }


def _check(plan: UsagePlan) -> None:
    if max(n for n in msgspec.structs.astuple(plan) if not isinstance(n, str)) > PLAN_MAX or plan.active_hours > 24:
        raise click.UsageError(f"--active-hours may be at most 24, any other number {PLAN_MAX:.0e}.")
    periods = (plan.recrawl_days, plan.active_hours, plan.freshness_s)
    if min(periods) <= 0 or min(plan.batch_size, plan.embed_instances) < 1 or max(plan.churn, plan.device) > 1:
        raise click.UsageError(
            "--recrawl-days, --batch-size, --active-hours, --freshness-s and --embed-instances must be more than 0, "
            "--churn and --device at most 1."
        )


def _table(found: list[Line], *, explain: bool, real: dict[tuple[str, str], float]) -> None:
    column = f" {'measured':>12} {'share':>7}" if real else ""
    click.echo(f"{'service':18} {'metric':20} {'used':>12} {'free':>12} {'':11} {'share':>7}{column}")
    for line in found:
        per = {"always": line.unit, "day": f"{line.unit}/day", "month": line.unit}[line.per][:11]
        mark = f"  over: {line.cost:,.2f} a month" if line.share > 1 else "  close" if line.share > ENOUGH else ""
        used, free = _number(line.used), _number(line.free)
        one = real.get((line.service, line.metric))
        told = (
            "" if not real else f" {'-':>12} {'':>7}" if one is None else f" {_number(one):>12} {one / line.free:>7.1%}"
        )
        mark = "  over" if one is not None and one > line.free else mark
        click.echo(f"{line.service:18} {line.metric:20} {used:>12} {free:>12} {per:11} {line.share:>7.1%}{told}{mark}")
        if explain:
            click.echo(f"    = {line.arithmetic}")


def _verdict(found: list[Line], worst: Line, load: float, *, paid: bool) -> None:
    over = [line for line in found if line.share > 1]
    tight = max(line.share for line in found)
    if over:
        click.echo("\nNot free: " + ", ".join(f"{line.service} {line.metric} at {line.share:.0%}" for line in over))
    else:
        click.echo(f"\nFree in every service, with {1 - tight:.0%} to spare where it is tightest.")
    click.echo(f"The first limit to growth: {worst.service}, {worst.metric} ({worst.share:.0%} used).")
    if not paid:
        click.echo(f"The first crawl of everything takes {load:.1f} days, because Firestore's free allowance is daily.")


def _sources() -> None:
    free = allowances()
    click.echo(f"\nAllowances, looked up on {free.looked_up}:")
    for one in free.allowances:
        note = f" ({one.note})" if one.note else ""
        click.echo(f"  {one.service} {one.metric}: {one.free:,g} {one.unit}{note} [{one.read}] {one.title}, {one.url}")
        click.echo(f"    then {one.price:.10g} US dollars each [{one.price_read}, {free.prices_looked_up}]")
    click.echo("\nCounts for a thousand:")
    for name, operation in counted().operations.items():
        for resource, figure in operation.counts.items():
            click.echo(f"  {name} {resource}: {figure.value:,g} ({figure.basis}: {figure.why})")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
