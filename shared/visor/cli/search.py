"""`visor search`, `compare` and `feedback`: the nearest items to an image, and what searchers said about them."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from visor.config_errors import misfit
from visor.console import GivenPath, Number, as_json, print_json, say
from visor.errors import BadRequest, VisorError
from visor.schema.items import ITEM_ID
from visor.schema.search import EXAMPLES_MAX, FACETS, CompareRequest, Filters, Match, Place, SearchAnswer, Sort
from visor.schema.words import counted, sureness
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.search.feedback import Feedback
    from visor.search.service import SearchService

PLACES_SHOWN = 3
"""How many of a match's further places, and of its product's other pictures, are listed."""
_OPTIONS = {
    "min_confidence": "--min-confidence",
    "min_similarity": "--min-similarity",
    "nearest": "--nearest",
    "text of the search": "--text",
}
"""What errors call a field of a request, and the option that sets it."""


@click.command("search")
@click.argument("image", required=False)
@click.option("--text", help="Words that describe the matches, alone or together with IMAGE.")
@click.option("--like", multiple=True, metavar="IMAGE", help="Another picture that matches should be like.")
@click.option("--unlike", multiple=True, metavar="IMAGE", help="A picture that matches should not be like.")
@click.option("-k", default=12, show_default=True, type=click.IntRange(1, 200), help="How many matches.")
@click.option("--sort", type=click.Choice(get_args(Sort)), help="Order of the matches; nearest first by default.")
@click.option("--nearest", type=click.IntRange(0, 200), help="With --sort: order only this many of the nearest.")
@click.option("--min-confidence", type=Number(0, 1), help="Leave out matches that are less sure.")
@click.option("--min-similarity", type=Number(-1, 1), help="Leave out matches that are less like IMAGE.")
@click.option("--variety", type=Number(0, 1), help="Towards 1: fewer matches that are alike.")
@click.option("--group/--no-group", default=True, show_default=True, help="One match per product, or every picture.")
@click.option("--after", metavar="NEXT", help="Continue after an earlier answer: its `next`.")
@click.option("--all", "to_the_end", is_flag=True, help="List every match, to the end.")
@click.option("--exact", is_flag=True, help="Compare with every vector instead of scanning codes first.")
@click.option("--metric", help="A SciPy metric by name, on the full vectors.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="K=V",
    help="e.g. collection=animals, price=..20, date=2024..; also size!=L, and colour= for items without one",
)
@click.option("--box", metavar="X,Y,W,H", help="Search within this box, in fractions of the sides.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; for a folder, one line per picture.")
def search_command(
    image: str | None,
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    filters: tuple[str, ...],
    box: str | None,
    exact: bool,
    to_the_end: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the nearest items to IMAGE, or those that TEXT describes.

    IMAGE is a file, a URL or an item's id. If it is a folder, each picture in it is searched for.
    """
    from visor.app import App
    from visor.search.request import given_path, request_of
    from visor.storage import existing

    if image is None and options["text"] is None and not (like or unlike or filters):
        raise BadRequest(
            "There is nothing to search for",
            valid="A picture (its file, URL or item's id), --text WORDS or --filter NAME=VALUE",
            remedy="Give one of them, or several; `visor search --help` shows all options",
        )
    is_list = image is None and options["text"] is None and not (like or unlike)
    _check_together(image, like + unlike, box, options)
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"filters": filters_from_options(filters), "box": _parse_box(box), "mode": "exact" if exact else "fast"}
    given["examples"] = [*like, *((one, -1.0) for one in unlike)]
    service = App(existing(Settings.read())).serving()()

    def answer_to(query: str | None) -> SearchAnswer:
        try:
            request, upload = request_of(query, given)
            answer = first = service.search(request, upload)
        except BadRequest as exc:
            raise _in_options(exc) from exc
        while to_the_end and answer.next is not None:
            request = msgspec.structs.replace(request, after=answer.next)
            answer = service.search(request, upload)
            first = msgspec.structs.replace(first, matches=first.matches + answer.matches, next=answer.next)
        return first

    if image is not None and (folder := given_path(image)).is_dir():
        _search_each(_pictures_below(folder), answer_to, as_json=as_json)
        return
    answer = answer_to(image)
    if as_json:
        print_json(answer)
        return
    if held_back := _held_back(answer):
        click.echo(held_back)
        return
    if answer.notice:
        say(answer.notice)
    if not (answer.index.images or answer.notice):
        click.echo("The index is empty. `visor index PATH` fills it; VISOR_INDEX names another one.")
        return
    if answer.query.blank:
        click.echo(answer.query.blank)
    elif not answer.matches:
        click.echo("No item matches.")
    elif answer.no_confident_match and not is_list:
        click.echo(f"The index probably does not have it (confidence {answer.confidence:.2f}). The nearest items:")
    for number, match in enumerate(answer.matches, 1):
        click.echo(f"{number:3}  {_line(match)}")
        if match.places:
            click.echo(f"     {counted(len(match.places), 'place')}; also {_named(match.places[1:], service)}")
        if match.product:
            click.echo(f"     {len(match.product):,} more of this product: {_named(match.product, service)}")
    took = answer.timing_ms["total"]
    click.echo(f"{len(answer.matches)} of {counted(answer.index.images, 'item')} in {took:.0f} ms ({answer.mode})")
    if answer.next:
        click.echo(f"There are more: --all, or --after {answer.next}")


def _check_together(image: str | None, examples: tuple[str, ...], box: str | None, options: dict[str, Any]) -> None:
    """Raise `BadRequest` if options do not go together."""
    if len(examples) > EXAMPLES_MAX:
        found = f"--like and --unlike are given {counted(len(examples), 'time')}"
        raise BadRequest(found, valid=f"At most {EXAMPLES_MAX} times in all", remedy="Leave some out")
    if box is not None and (image is None or ITEM_ID.match(image)):
        found = "--box does not go with " + ("an item" if image else "--like, --unlike, --text or --filter alone")
        raise BadRequest(found, valid="IMAGE as a file or URL", remedy="Give the picture, or leave --box out")
    if options["metric"] is not None and options["text"] is not None:
        raise BadRequest("--metric does not go with --text", valid="One of the two", remedy="Leave the other out")


def _in_options(exc: BadRequest) -> BadRequest:
    """The same error, naming options instead of the fields of a request."""
    if exc.found.startswith("after is "):
        valid = "What a search with the same picture and options printed for --after"
        return BadRequest("--" + exc.found, valid=valid, remedy="Give it unchanged, or begin without --after")
    found, valid, remedy = (
        re.sub("|".join(_OPTIONS), lambda name: _OPTIONS[name[0]], text) for text in (exc.found, exc.valid, exc.remedy)
    )
    return BadRequest(found, valid=valid, remedy=remedy)


def _line(match: Match) -> str:
    item = match.item
    price = "" if item.price is None else f"{item.price:,.2f} {item.currency or ''}".strip()
    likeness = "" if match.similarity is None else f"{match.similarity:.3f}"
    sure = "" if match.similarity is None and match.text_score is None else sureness(match.confidence)
    found = f"{likeness:5}  {sure:>4}  {match.verdict or '':7}"
    return f"{found}  {item.title[:40]:40}  {price:>14}  {item.page_url or item.image_url or item.key}"


def _named(places: Sequence[Place], service: SearchService) -> str:
    """URLs of the first of them, or keys of those without one."""
    shown = places[:PLACES_SHOWN]
    names = [place.page_url or place.image_url or service.item(place.item).item.key for place in shown]
    return ", ".join([*names, "…"] if len(places) > len(names) else names)


def _held_back(answer: SearchAnswer) -> str:
    """Why nothing was searched for, and what to do; empty if the search ran."""
    if not (answer.safety and answer.safety.unsafe):
        return ""
    from visor.models.moderation import unsafe_score_in_words

    threshold = Settings.read().unsafe_query
    score = unsafe_score_in_words(answer.safety.probabilities, threshold)
    return (
        f"The model considers this image unsafe, so it was not searched for: its score is {score}. "
        f"Valid: A score below {threshold:g}. If it is fine, raise VISOR_UNSAFE_QUERY, or search for a part with --box."
    )


def _pictures_below(folder: Path) -> list[Path]:
    from visor.imaging.sniff import ENDINGS

    if found := sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()):
        return found
    raise BadRequest(
        f"{folder} holds no picture",
        valid="Files such as .jpg, .png or .webp, also in its sub-folders",
        remedy="Name another folder",
    )


def _search_each(paths: list[Path], answer_to: Callable[[str], SearchAnswer], *, as_json: bool) -> None:
    """A line for each picture as soon as it was searched for; exit status 1 if one could not be."""
    from visor.web.problems import problem_of

    failed = 0
    for path in paths:
        name = os.fsencode(path).decode(errors="replace")  # JSON has no other names
        try:
            answer = answer_to(str(path))
        except VisorError as exc:
            failed += 1
            outcome = {"image": name, "problem": problem_of(exc)}
            line = f"{path}: {exc}"
        else:
            outcome = {"image": name, "answer": answer}
            nothing = _held_back(answer) or answer.query.blank or "no match"
            line = f"{path}: {_line(answer.matches[0]) if answer.matches else nothing}"
        click.echo(msgspec.json.encode(outcome) if as_json else line)
    if failed:
        say(f"{failed} of {counted(len(paths), 'picture')} could not be searched for")
        raise SystemExit(1)


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option("--overlay", type=GivenPath(), metavar="FILE", help="Write SECOND, aligned with FIRST.")
@click.option("--difference", type=GivenPath(), metavar="FILE", help="Write where they differ, a PNG.")
@as_json
def compare_command(first: str, second: str, overlay: Path | None, difference: Path | None, as_json: bool) -> None:
    """Show what two pictures have in common: files, URLs or items' ids, whether or not the index has them."""
    from visor.app import App
    from visor.search.compare import Comparer
    from visor.search.request import picture_of
    from visor.storage import existing

    app = App(existing(Settings.read()))
    (one, upload), (other, other_upload) = picture_of(first), picture_of(second)
    comparer = Comparer(app.serving()(), app.read_image)
    answer = comparer.compare(CompareRequest(first=one, second=other), (upload, other_upload))
    for path, encoded in ((overlay, answer.second), (difference, answer.difference)):
        if path is not None and answer.is_aligned and encoded is not None:
            path.write_bytes(base64.b64decode(encoded))
    if as_json:
        print_json(answer)
        return
    click.echo(f"{answer.verdict}  similarity {answer.similarity:.3f}  confidence {sureness(answer.confidence)}")
    if not answer.is_aligned:
        click.echo(
            "They are too different to be laid over each other" + "; no file was written" * bool(overlay or difference)
        )


def filters_from_options(texts: tuple[str, ...]) -> Filters:
    """`Filters` from `name=value` texts: a repeated name accepts any of its values, `name!=value` none of them,
    `name=low..high` a range, `name=` items without it.

    Raises:
        BadRequest: A text is not a filter.
    """
    values: dict[str, Any] = {}
    conditions: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        is_none, name = name.endswith("!"), name.removesuffix("!").strip()
        if not equals or not name:
            raise BadRequest(
                f"--filter {text} is not a filter",
                valid=f"NAME=VALUE with NAME one of {', '.join(FACETS)}, price, date, or a declared attribute",
                remedy="Ranges are LOW..HIGH, and either end may be omitted",
            )
        low, dots, high = value.partition("..")
        is_range = bool(dots) and all(not end or end[0] in "+-0123456789" for end in (low, high))
        if is_none:
            conditions.setdefault(name, {}).setdefault("none", []).append(value)
        elif not value:
            conditions.setdefault(name, {})["missing"] = True
        elif name in FACETS:
            values.setdefault(name, []).append(value)
        elif name == "date":
            _bound(values, text, date_from=low, date_to=high if dots else low)
        elif name == "price":
            _bound(values.setdefault("price", {}), text, min=_price(low, text), max=_price(high if dots else low, text))
        elif is_range:
            condition = conditions.setdefault(name, {})
            _bound(condition, text, min=low, max=high)
            condition |= {} if low or high else {"missing": False}
        else:
            conditions.setdefault(name, {}).setdefault("any", []).append(value)
    values["attributes"] = conditions
    try:
        return msgspec.convert(values, Filters)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, Filters, values, what="the --filter options")
        raise BadRequest(found, valid=valid, remedy=remedy) from exc


def _bound(bounds: dict[str, Any], text: str, **given: str | float | None) -> None:
    """Add what is given to `bounds`. Raises BadRequest: a bound was given before, and one of the two would be lost."""
    found = {end: limit for end, limit in given.items() if limit not in ("", None)}
    if bounds.keys() & found.keys():
        raise BadRequest(
            f"--filter {text} sets a bound that an earlier option has set",
            valid="One lower and one upper bound of a name, as in price=5..20",
            remedy="Leave one of the two out",
        )
    bounds |= found


def _price(text: str, option: str) -> float | None:
    try:
        price = float(text) if text else None
        if price is None or math.isfinite(price):
            return price
    except ValueError:
        pass
    raise BadRequest(f"--filter {option} is not a price", valid="e.g. price=5..20", remedy="Correct it")


def _parse_box(text: str | None) -> Any:
    if text is None:
        return None
    try:
        box = tuple(float(part) for part in text.split(","))
    except ValueError:
        box = ()
    if len(box) != 4 or not all(0 <= part <= 1 for part in box):
        valid = "x,y,width,height, four fractions from 0 to 1"
        raise BadRequest(f"--box is {text!r}", valid=valid, remedy="Correct it")
    return box


@click.group("feedback")
def feedback_command() -> None:
    """Show, accept or reject what searchers said, and forget what their photos look like."""


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
@click.argument("keys", nargs=-1, required=True)
def accept_feedback(keys: tuple[str, ...]) -> None:
    """Accept what visitors said, by KEYS of `visor feedback list` (`all`: what waits): it counts for everybody."""
    _decide(keys, accept=True)


@feedback_command.command("reject")
@click.argument("keys", nargs=-1, required=True)
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
    if unknown := [key for key in chosen if key not in known]:
        raise BadRequest(
            f"{unknown[0]} is not a key of feedback",
            valid=f"Keys that `visor feedback list` prints, {len(known)} now, or `all` for what waits",
            remedy="Copy keys from there",
        )
    with open_stores(settings) as stores:
        decide(stores.documents, [known[key][0] for key in chosen], accept=accept)
    done = "accepted" if accept else "rejected"
    click.echo(f"{len(chosen)} {done}; searches follow within {settings.freshness_s:g} s")
