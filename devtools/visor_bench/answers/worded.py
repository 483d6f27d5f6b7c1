"""`visor bench worded`: how sure answers to words are, alone and with photos, and how often they are right."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from visor.confidence.model import CONFIDENT
from visor.confidence.words import words_confidence
from visor.console import as_json, print_json, progress, say
from visor.demo.pictures import ensure_demo_pictures
from visor.index.words.analysis import fold
from visor.index.words.text_index import Part, TextIndex, Words
from visor.schema.search import SearchRequest
from visor.settings import LANGUAGES, Settings
from visor_bench.answers.gap import FILE, FOLDER, Article, Photo, index_of
from visor_bench.answers.life import drawings
from visor_bench.answers.packshots import articles_of, photos_of
from visor_bench.answers.reliability import Said

DRAWS = 2
SAMPLED = 300
"""Most articles that are searched for."""
PHOTOS = 162
DESCRIBED = 8
"""Number of words from the beginning of a description."""
LETTERS = "abcdefghiklmnoprstu"
Right = Callable[[Article], bool]


@dataclass(frozen=True)
class Question:
    """A text, which articles are right, and which are removed before the search."""

    kind: str
    text: str
    right: Right
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Asked:
    """The result of one question; not `found`: no article has these words."""

    kind: str
    found: bool
    right: bool
    confidence: float


@click.command("worded")
@click.option("--catalogue", type=FOLDER, help="A folder with catalogue.json; without it the demo's drawings.")
@click.option("--queries", type=FOLDER, help="Photos, one sub-folder per kind, to search for together with words …")
@click.option("--map", "map_file", type=FILE, help="… and JSON: the sub-folder to the catalogue's image.")
@as_json
def worded_command(catalogue: Path | None, queries: Path | None, map_file: Path | None, as_json: bool) -> None:
    """Search for articles by their names, categories, descriptions and typos, also for articles that were removed; and
    together with photos."""
    settings = Settings.read()
    articles = articles_of(catalogue) if catalogue else drawings(ensure_demo_pictures(settings.home, say))
    asked = [one for seed in range(DRAWS) for one in alone(articles, random.Random(seed))]  # noqa: S311 - no secret
    document = {"words": figures(asked)}
    if queries and map_file:
        beside = list(beside_photos(articles, photos_of(queries, map_file), settings))
        document["beside_photos"] = figures([one for one in beside if one.kind != "photo alone"])
        document["photos"] = figures([one for one in beside if one.kind == "photo alone"])
    if as_json:
        print_json(document)
        return
    for name, rows in document.items():
        click.echo(f"{name}: calibration error {rows.pop('calibration_error')}")
        for kind, row in rows.items():
            click.echo(f"  {kind:28} " + "  ".join(f"{key} {value}" for key, value in row.items()))


def figures(asked: Sequence[Asked]) -> dict[str, Any]:
    """For each kind: the number of questions, the share that is right, the mean confidence, and the share called a
    match."""
    found = [one for one in asked if one.found]
    said = Said(np.array([one.confidence for one in found]), np.array([one.right for one in found]))
    rows: dict[str, Any] = {"calibration_error": round(said.error(), 3)}
    for kind in dict.fromkeys(one.kind for one in asked):
        mine = [one for one in asked if one.kind == kind]
        rows[kind] = {
            "asked": len(mine),
            "right": round(float(np.mean([one.right for one in mine])), 2),
            "confidence": round(float(np.mean([one.confidence for one in mine])), 2),
            "called": round(float(np.mean([one.confidence >= CONFIDENT for one in mine])), 2),
        }
    return rows


def questions(articles: Sequence[Article], rng: random.Random) -> Iterator[Question]:
    """What people might type for each article, and the same when no article with its title is left."""
    for a in rng.sample(list(articles), min(SAMPLED, len(articles))):
        same = frozenset(one.id for one in articles if fold(one.title) == fold(a.title))
        words, kin = a.title.split(), frozenset(one.id for one in articles if one.category == a.category)
        its_own = _titled(a.title, whole=True)
        yield Question("a title", rng.choice([a.title, a.title.lower()]), its_own)
        yield Question("its item left out", a.title, _titled(a.title), same)
        if mistyped := _mistyped(a.title, rng):
            yield Question("a title with a typo", mistyped, its_own)
            yield Question("the same, left out", mistyped, _titled(a.title), same)
        if len(words) > 1:
            part = rng.choice(words)
            yield Question("a word of a title", part, _titled(part))
            yield Question("a word, and one unheard of", f"{words[0]} xylophone", its_own)
        mixed = f"{words[0]} {rng.choice(articles).title.split()[-1]}"
        yield Question("words of two titles", mixed, _titled(mixed))
        if not (a.category and a.description):
            continue

        def in_category(one: Article, category: str = a.category) -> bool:
            return one.category == category

        told = [
            word
            for word in re.findall(r"[^\W\d]{4,}", a.description)
            if fold(word) not in fold(f"{a.title} {a.category}")
        ]
        begin = " ".join(a.description.split()[:DESCRIBED])
        yield Question("a category", a.category, in_category)
        yield Question("words of a description", begin, its_own)
        yield Question("the same description, left out", begin, lambda _: False, same)
        if told:
            yield Question("a told word and a category", f"{rng.choice(told)} {a.category}", in_category)
            yield Question("the same, category left out", f"{rng.choice(told)} {a.category}", in_category, kin)


def alone(articles: Sequence[Article], rng: random.Random) -> Iterator[Asked]:
    whole = _words(articles)
    for question in questions(articles, rng):
        left = [one for one in articles if one.id not in question.without]
        words = _words(left) if question.without else whole
        query = words.query(question.text)
        found = words.find(query, 1).rows
        if not len(found):
            yield Asked(question.kind, False, False, 0.0)
            continue
        first = left[found[0]]
        said = {"title": first.title, "description": first.description, "collection": first.collection}
        met = query.where(said | {"category": first.category})[1]
        yield Asked(question.kind, True, question.right(first), float(words_confidence(met)))


def beside_photos(articles: Sequence[Article], photos: Sequence[Photo], settings: Settings) -> Iterator[Asked]:
    """Photos together with words about what they show."""
    rng, known = random.Random(0), {one.id: one for one in articles}  # noqa: S311 - no secret
    some = rng.sample(list(photos), min(PHOTOS, len(photos)))
    with index_of(articles, settings) as bench, progress("Asking", len(some)) as done:
        for photo in some:
            thing = known[min(photo.right)]
            texts = {
                "photo alone": None,
                "its title": thing.title,
                "its category": thing.category,
                "its collection": thing.collection,
                "a word of its title": rng.choice(thing.title.split()),
                "words that nothing says": "xylophone quartz",
            }
            data = photo.path.read_bytes()
            for kind, text in texts.items():
                first = next(iter(bench.service.search(SearchRequest(text=text, k=1), data).matches), None)
                if first is not None:
                    ids = {first.item.id, *(place.item for place in first.places)}
                    yield Asked(kind, True, bool(ids & photo.right), first.confidence)
            done(1)


def _titled(text: str, *, whole: bool = False) -> Right:
    """Articles whose title has all these words, or is exactly this text, if `whole`."""
    asked = set(re.findall(r"\w+", fold(text)))
    return lambda one: fold(one.title) == fold(text) if whole else asked <= set(re.findall(r"\w+", fold(one.title)))


def _mistyped(title: str, rng: random.Random) -> str:
    """The text with one letter of a word of five letters or more left out, doubled, swapped or replaced; "" if none."""
    words = title.split()
    places = [place for place, word in enumerate(words) if len(word) >= 5]
    if not places:
        return ""
    place = rng.choice(places)
    word, at = words[place], rng.randrange(1, len(words[place]) - 1)
    ends = (
        word[at + 1 :],
        word[at] + word[at:],
        word[at + 1] + word[at] + word[at + 2 :],
        rng.choice(LETTERS) + word[at + 1 :],
    )
    words[place] = word[:at] + rng.choice(ends)
    return " ".join(words) if words[place].lower() != word.lower() else ""


def _words(articles: Sequence[Article]) -> Words:
    texts = [
        {"title": [a.title], "description": [a.description], "about": [a.category, a.collection], "labels": []}
        for a in articles
    ]
    rows = np.arange(len(articles))
    return Words([Part(TextIndex.of(texts, LANGUAGES), LANGUAGES, np.zeros_like(rows), rows)])
