"""`visor search`: the nearest items to a picture, from the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from visor.console import as_json, print_json
from visor.errors import BadRequest
from visor.settings import Settings


@click.command("search")
@click.argument("image")
@click.option("-k", default=12, show_default=True, type=click.IntRange(1, 200), help="How many matches.")
@click.option("--exact", is_flag=True, help="Compare with every vector, instead of scanning codes first.")
@click.option("--metric", help="A SciPy metric by name, on the full vectors.")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="e.g. collection=animals, price=..20, date=2024.."
)
@click.option("--box", metavar="X,Y,W,H", help="Search within this part, in fractions of the sides.")
@as_json
def search_command(
    image: str, k: int, exact: bool, metric: str | None, filters: tuple[str, ...], box: str | None, as_json: bool
) -> None:
    """Find the nearest items to IMAGE, a file or an address."""
    from visor.app import Assembly
    from visor.schema.search import SearchRequest

    remote = image.startswith(("http://", "https://"))
    request = SearchRequest(
        url=image if remote else None,
        k=k,
        mode="exact" if exact else "fast",
        metric=metric,
        filters=parse_filters(filters),
        box=_parse_box(box),
    )
    upload = None if remote else _read(image)
    answer = Assembly(Settings.read()).search_service().search(request, upload)
    if as_json:
        print_json(answer)
        return
    if answer.safety and answer.safety.unsafe:
        click.echo("The safety head says that this picture is not safe: it is not searched for.")
        return
    if not answer.index.images:
        click.echo("The index is empty. `visor index PATH` fills it; VISOR_INDEX names another one.")
        return
    if answer.no_confident_match:
        click.echo(f"Nothing like it is in the index (confidence {answer.confidence:.2f}). The nearest anyway:")
    for number, match in enumerate(answer.matches, 1):
        item = match.item
        price = "" if item.price is None else f"{item.price:,.2f} {item.currency or ''}".strip()
        where = item.page_url or item.image_url or item.key
        found = f"{number:3}  {match.similarity:.3f}  {match.confidence:4.0%}  {match.verdict:7}"
        click.echo(f"{found}  {item.title[:40]:40}  {price:>14}  {where}")
    took = answer.timing_ms["total"]
    click.echo(f"{len(answer.matches)} of {answer.index.images} items in {took:.0f} ms ({answer.mode})")


def parse_filters(texts: tuple[str, ...]) -> Any:
    """`Filters` from `name=value` texts; a repeated name takes any of its values.

    Raises:
        BadRequest: A text is no filter.
    """
    from visor.schema.search import FACETS, Filters

    lists: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in (*FACETS, "price", "date"):
            raise BadRequest(
                f"--filter {text} is no filter",
                valid=f"NAME=VALUE with NAME one of {', '.join(FACETS)}, price, date",
                remedy="Ranges are LOW..HIGH, and either end may be left out",
            )
        if name in FACETS:
            lists.setdefault(name, []).append(value)
            continue
        low, dots, high = value.partition("..")
        high = high if dots else low
        if name == "date":
            lists["date_from"], lists["date_to"] = low or None, high or None
        else:
            lists["price"] = {"min": _number(text, low), "max": _number(text, high)}
    return msgspec.convert(lists, Filters)


def _number(text: str, value: str) -> float | None:
    try:
        return float(value) if value else None
    except ValueError as exc:
        raise BadRequest(f"--filter {text}: {value!r} is no number", valid="e.g. price=5..20") from exc


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
        raise BadRequest(
            f"{path} cannot be read: {exc.strerror}", valid="A picture file, or an http(s) address"
        ) from exc
