"""`visor search` and `visor feedback`: the nearest items to an image, and what searchers rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import as_json, print_json
from visor.errors import BadRequest
from visor.schema.search import FACETS, Filters, SearchRequest
from visor.settings import Settings


@click.command("search")
@click.argument("image")
@click.option("-k", default=12, show_default=True, type=click.IntRange(1, 200), help="How many matches.")
@click.option("--exact", is_flag=True, help="Compare with every vector instead of scanning codes first.")
@click.option("--metric", help="A SciPy metric by name, on the full vectors.")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="e.g. collection=animals, price=..20, date=2024.."
)
@click.option("--box", metavar="X,Y,W,H", help="Search within this box, in fractions of the sides.")
@as_json
def search_command(
    image: str, k: int, exact: bool, metric: str | None, filters: tuple[str, ...], box: str | None, as_json: bool
) -> None:
    """Find the nearest items to IMAGE, a file or a URL."""
    from visor.app import App
    from visor.storage import existing

    remote = image.startswith(("http://", "https://"))
    request = SearchRequest(
        url=image if remote else None,
        k=k,
        mode="exact" if exact else "fast",
        metric=metric,
        filters=filters_from_options(filters),
        box=_parse_box(box),
    )
    upload = None if remote else _read(image)
    answer = App(existing(Settings.read())).search_service().search(request, upload)
    if as_json:
        print_json(answer)
        return
    if answer.safety and answer.safety.unsafe:
        click.echo("The model considers this image unsafe, so it was not searched for.")
        return
    if not answer.index.images:
        click.echo("The index is empty. `visor index PATH` fills it; VISOR_INDEX names another one.")
        return
    if answer.query.blank:
        click.echo(answer.query.blank)
    elif answer.no_confident_match:
        click.echo(f"The index probably does not have it (confidence {answer.confidence:.2f}). The nearest items:")
    for number, match in enumerate(answer.matches, 1):
        item = match.item
        price = "" if item.price is None else f"{item.price:,.2f} {item.currency or ''}".strip()
        where = item.page_url or item.image_url or item.key
        found = f"{number:3}  {match.similarity:.3f}  {match.confidence:4.0%}  {match.verdict:7}"
        click.echo(f"{found}  {item.title[:40]:40}  {price:>14}  {where}")
    took = answer.timing_ms["total"]
    click.echo(f"{len(answer.matches)} of {answer.index.images} items in {took:.0f} ms ({answer.mode})")


def filters_from_options(texts: tuple[str, ...]) -> Filters:
    """`Filters` from `name=value` texts; a repeated name takes any of its values.

    Raises:
        BadRequest: A text is not a filter.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in (*FACETS, "price", "date"):
            raise BadRequest(
                f"--filter {text} is not a filter",
                valid=f"NAME=VALUE with NAME one of {', '.join(FACETS)}, price, date",
                remedy="Ranges are LOW..HIGH, and either end may be omitted",
            )
        if name in FACETS:
            values.setdefault(name, []).append(value)
            continue
        low, dots, high = value.partition("..")
        high = high if dots else low
        if name == "date":
            values["date_from"], values["date_to"] = low or None, high or None
            continue
        try:
            values["price"] = {"min": float(low) if low else None, "max": float(high) if high else None}
        except ValueError as exc:
            raise BadRequest(f"--filter {text} is not a price", valid="e.g. price=5..20") from exc
    return msgspec.convert(values, Filters)


def _parse_box(text: str | None) -> Any:
    if text is None:
        return None
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(0 <= part <= 1 for part in box):
        raise BadRequest(f"--box is {text!r}", valid="x,y,width,height, four fractions from 0 to 1")
    return box


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise BadRequest(f"{path} cannot be read: {exc.strerror}", valid="An image file, or an http(s) URL") from exc


@click.group("feedback")
def feedback_command() -> None:
    """Show what searchers rejected or called harmless, and forget what their photos look like."""


@feedback_command.command("forget-visitors")
def forget_visitors_command() -> None:
    """Forget what was learned from visitors' photos, at the next merge."""
    from visor.search.visitors import forget_visitors
    from visor.storage import existing, open_stores

    with open_stores(existing(Settings.read())) as stores:
        forget_visitors(stores.documents)
    click.echo("The next merge forgets what was learned from visitors' photos: visor compact")


@feedback_command.command("export")
@as_json
def export_feedback(as_json: bool) -> None:
    """Print each pair of a query and an item (`-`: harmless), the newest first."""
    from visor.search.feedback import all_feedback
    from visor.storage import existing, open_stores

    with open_stores(existing(Settings.read())) as stores:
        kept = all_feedback(stores.documents)
    if as_json:
        print_json({"feedback": [{"query": one.query, "item": one.item, "verdict": one.verdict} for one in kept]})
        return
    for one in kept:
        click.echo(f"{one.query}  {one.item or '-'}  {one.verdict}")
