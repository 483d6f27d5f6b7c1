"""`visor search` and `visor feedback`: the nearest items to an image, and what searchers said of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visor.console import as_json, print_json, say
from visor.errors import BadRequest
from visor.schema.search import FACETS, Filters, SearchRequest
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.search.feedback import Feedback


@click.command("search")
@click.argument("image", required=False)
@click.option("--text", help="Words that matches are about, alone or beside IMAGE.")
@click.option("-k", default=12, show_default=True, type=click.IntRange(1, 200), help="How many matches.")
@click.option("--exact", is_flag=True, help="Compare with every vector instead of scanning codes first.")
@click.option("--metric", help="A SciPy metric by name, on the full vectors.")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="e.g. collection=animals, price=..20, date=2024.."
)
@click.option("--box", metavar="X,Y,W,H", help="Search within this box, in fractions of the sides.")
@as_json
def search_command(
    image: str | None,
    text: str | None,
    k: int,
    exact: bool,
    metric: str | None,
    filters: tuple[str, ...],
    box: str | None,
    as_json: bool,
) -> None:
    """Find the nearest items to IMAGE, a file or a URL, or those that TEXT is about."""
    from visor.app import App
    from visor.storage import existing

    remote = image is not None and image.startswith(("http://", "https://"))
    request = SearchRequest(
        url=image if remote else None,
        text=text,
        k=k,
        mode="exact" if exact else "fast",
        metric=metric,
        filters=filters_from_options(filters),
        box=_parse_box(box),
    )
    upload = None if remote or image is None else _read(image)
    answer = App(existing(Settings.read())).search_service().search(request, upload)
    if as_json:
        print_json(answer)
        return
    if answer.safety and answer.safety.unsafe:
        click.echo("The model considers this image unsafe, so it was not searched for.")
        return
    if answer.notice:
        say(answer.notice)
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
        likeness = "     " if match.similarity is None else f"{match.similarity:.3f}"
        found = f"{number:3}  {likeness}  {match.confidence:4.0%}  {match.verdict:7}"
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
    """Show, take in or reject what searchers said, and forget what their photos look like."""


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
    """Print each pair of a query and an item (`-`: harmless) that waits or counts, the newest first."""
    said = [one for one, _ in _feedback().values()]
    if as_json:
        print_json({"feedback": [{"query": one.query, "item": one.item, "verdict": one.verdict} for one in said]})
        return
    for one in said:
        click.echo(f"{one.query}  {one.item or '-'}  {one.verdict}")


@feedback_command.command("list")
@as_json
def list_feedback(as_json: bool) -> None:
    """Print what waits for you and what counts, each with its key for `accept` and `reject`."""
    rows = [
        {"key": key, "state": "waits" if waits else "counts", "query": one.query, "item": one.item, "said": one.verdict}
        for key, (one, waits) in _feedback().items()
    ]
    if as_json:
        print_json({"feedback": rows})
        return
    for row in rows:
        click.echo("  ".join(value or "-" for value in row.values()))


@feedback_command.command("accept")
@click.argument("keys", nargs=-1)
def accept_feedback(keys: tuple[str, ...]) -> None:
    """Take in what visitors said, by KEYS of `visor feedback list` (`all`: what waits): it counts for everybody."""
    _decide(keys, accept=True)


@feedback_command.command("reject")
@click.argument("keys", nargs=-1)
def reject_feedback(keys: tuple[str, ...]) -> None:
    """Drop what waits, or take back what counts, by KEYS of `visor feedback list` (`all`: what waits)."""
    _decide(keys, accept=False)


def _feedback() -> dict[str, tuple[Feedback, bool]]:
    """All feedback by its key, and whether it waits for the owner."""
    from visor.schema.collections import FEEDBACK, FEEDBACK_INBOX
    from visor.search.feedback import all_feedback, pair_key
    from visor.storage import existing, open_stores

    with open_stores(existing(Settings.read())) as stores:
        waiting, kept = (all_feedback(stores.documents, collection) for collection in (FEEDBACK_INBOX, FEEDBACK))
    both = [*((one, True) for one in waiting), *((one, False) for one in kept)]
    return {pair_key(one.query, one.item): (one, waits) for one, waits in both}


def _decide(keys: tuple[str, ...], *, accept: bool) -> None:
    from visor.search.feedback import decide
    from visor.storage import open_stores

    known, settings = _feedback(), Settings.read()
    chosen = [key for key, (_, waits) in known.items() if waits] if keys == ("all",) else keys
    if unknown := [key for key in chosen if key not in known] or (not keys and ["(nothing)"]):
        raise BadRequest(
            f"{unknown[0]} is no key of feedback",
            valid=f"The {len(known)} keys that `visor feedback list` prints, or `all` for what waits",
            remedy="Copy keys from there",
        )
    with open_stores(settings) as stores:
        decide(stores.documents, [known[key][0] for key in chosen], accept=accept)
    done = "accepted" if accept else "rejected"
    click.echo(f"{len(chosen)} {done}; searches follow within {settings.freshness_s:g} s")
