"""Wikidata through a small Wikimedia on this machine."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from tests.unit.sources.catalogue_server import Reply, Request, Server, context_for, serving
from tests.unit.sources.wikimedia_server import Article, Entity, File, Wikimedia

from visor.errors import SettingsError, SourceError, SourceUnavailable
from visor.schema.items import Item, item_id
from visor.sources.contract import Page, Source, SourceContext
from visor.sources.registry import open_source
from visor.sources.wikidata import source as wikidata

PAINTING, HORSE = "Q3305213", "Q726"


def museum(count: int = 120) -> Wikimedia:
    """Paintings with pictures, and the class that they are instances of."""
    wiki = Wikimedia()
    wiki.entities[3305213] = Entity(
        labels={"en": "painting"}, subclass_of="Q838948", pictures=[("Mona Lisa.jpg", "normal")]
    )
    wiki.entities[838948] = Entity(labels={"en": "work of art"})
    wiki.files["Mona Lisa.jpg"] = File()
    for at in range(count):
        name = f"Painting {at}.jpg"
        wiki.files[name] = File(sha1=f"{at:040x}")
        wiki.entities[10_000 + at * 7] = Entity(
            labels={"en": f"Painting {at}"}, instance_of=PAINTING, pictures=[(name.replace(" ", "_"), "normal")]
        )
    return wiki


def source(server: Server, context: SourceContext, **keys: Any) -> Source:
    config = {
        "kind": "wikidata",
        "query_url": f"{server.url}/sparql",
        "wikidata_url": f"{server.url}/wikidata/w/api.php",
        "commons_url": f"{server.url}/commons/w/api.php",
        "wikipedia_url": f"{server.url}/{{language}}/w/api.php",
        **({} if "classes" in keys else {"instances_of": [PAINTING]}),
        **keys,
    }
    return open_source("wd", config, context)


def read(wiki: Wikimedia, checkpoint: Any = None, **keys: Any) -> list[Page]:
    with serving(wiki) as server, context_for(server.host) as context:
        pages = list(source(server, context, **keys).read(checkpoint))
    assert wiki.problems == []
    return pages


def items_of(pages: list[Page]) -> dict[str, Item]:
    items = [item for page in pages for item in page.items]
    assert len({item.key for item in items}) == len(items)
    return {item.key: item for item in items}


def failures_of(pages: list[Page]) -> dict[str, str]:
    return {failure.key: failure.reason for page in pages for failure in page.failed}


def test_all_instances_of_a_class() -> None:
    wiki = museum()
    wiki.entities[10_000].descriptions = {"en": "a first one"}
    wiki.entities[10_000].articles = {"en": "Painting 0 (Ann)?", "de": "Gemälde 0"}
    pages = read(wiki)
    items = items_of(pages)
    assert len(items) == 120
    assert [len(page.items) for page in pages] == [50, 50, 20]
    assert items["Q10000"] == Item(
        id=item_id("wd", "Q10000"),
        source="wd",
        key="Q10000",
        image_url="https://upload.wikimedia.org/commons/thumb/a/aa/Painting_0.jpg/500px-Painting_0.jpg",
        page_url="https://en.wikipedia.org/wiki/Painting_0_%28Ann%29%3F",
        title="Painting 0",
        description="a first one",
        collection="painting",
        licence="CC BY-SA 4.0",
        author="Ann",
        image_etag=f"{0:040x}",
        extra={
            "wikidata": "https://www.wikidata.org/wiki/Q10000",
            "file_page": "https://commons.wikimedia.org/wiki/File:Painting_0.jpg",
            "licence_url": "https://creativecommons.org/licenses/by-sa/4.0",
        },
    )
    assert items["Q10007"].page_url == "https://www.wikidata.org/wiki/Q10007"


def test_one_picture_of_each_class() -> None:
    wiki = museum(3)
    wiki.entities[726] = Entity(labels={"en": "horse"}, subclass_of="Q1", pictures=[("Mona Lisa.jpg", "normal")])
    items = items_of(read(wiki, classes=True))
    assert set(items) == {PAINTING}, "a horse has no instance here"
    wiki.entities[5] = Entity(instance_of=HORSE)
    items = items_of(read(wiki, classes=True))
    assert (items[PAINTING].title, items[PAINTING].collection) == ("painting", "work of art")
    assert (items[HORSE].title, items[HORSE].collection) == ("horse", None)


def test_goes_on_from_every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikidata, "PAGE_SIZE", 9)
    monkeypatch.setattr(wikidata, "IDS_PER_QUERY", 20)
    wiki = museum(47)
    wiki.entities[77] = Entity(labels={"en": "Silver"}, instance_of=HORSE, pictures=[("Mona Lisa.jpg", "normal")])
    keys = {"instances_of": [PAINTING, HORSE]}
    whole = read(wiki, **keys)
    assert len(items_of(whole)) == 48
    for at, page in enumerate(whole[:-1]):
        checkpoint = json.loads(json.dumps(page.checkpoint))
        assert items_of(read(wiki, checkpoint, **keys)) == items_of(whole[at + 1 :])
    assert read(wiki, **keys) == whole


def test_the_rank_that_wikidata_prefers_decides() -> None:
    wiki = museum(1)
    wiki.files["Better.jpg"] = File()
    wiki.entities[10_000].pictures = [
        ("Wrong.jpg", "deprecated"),
        ("Painting 0.jpg", "normal"),
        ("Better.jpg", "preferred"),
    ]
    assert "Better" in items_of(read(wiki))["Q10000"].image_url


def test_languages_in_their_order() -> None:
    wiki = museum(2)
    wiki.entities[10_000].labels = {"de": "Gemälde", "fr": "Peinture"}
    wiki.entities[10_007].labels = {"ja": "絵"}
    items = items_of(read(wiki, languages=["en", "de"]))
    assert (items["Q10000"].title, items["Q10007"].title) == ("Gemälde", "Q10007")


def test_the_article_helps_out() -> None:
    wiki = museum(5)
    for at, number in enumerate(range(10_000, 10_035, 7)):
        wiki.entities[number].pictures = []
        wiki.entities[number].articles = {"en": f"Article_{at}" if at else "Article 0"}
    wiki.entities[10_028].articles = {"de": "Artikel"}
    wiki.entities[10_021].pictures = [("Deleted from Commons.jpg", "normal")]
    wiki.articles["en"] = {
        "Article 0": Article(pageimage="Chosen.jpg", images=["Other.jpg", "Chosen.jpg"]),
        "Article 1": Article(images=["Commons-logo.svg", "Flag of France.jpg", "Sound.ogg", "Late.jpg"]),
        "Article 2": Article(images=["Commons-logo.svg", "Map of it.png"]),
        "Article 3": Article(pageimage="Other.jpg"),
    }
    wiki.articles["de"] = {"Artikel": Article(pageimage="Deutsch.jpg")}
    for name in ("Chosen.jpg", "Other.jpg", "Late.jpg", "Commons-logo.svg", "Flag of France.jpg", "Deutsch.jpg"):
        wiki.files[name] = File()
    wiki.files["Sound.ogg"] = File(mime="application/ogg")
    pages = read(wiki, languages=["en", "de"])
    pictures = {key: item.image_url.rpartition("px-")[2] for key, item in items_of(pages).items()}
    assert pictures == {
        "Q10000": "Chosen.jpg",
        "Q10007": "Late.jpg",
        "Q10021": "Other.jpg",
        "Q10028": "Deutsch.jpg",
    }
    assert failures_of(pages) == {"Q10014": "neither it nor its article has a picture"}
    assert set(items_of(read(wiki, articles=False))) == set()


def test_deleted_and_merged_entities() -> None:
    wiki = museum(3)
    wiki.entities[10_000].deleted = True
    wiki.entities[10_007].redirects_to = 10_014
    pages = read(wiki)
    assert failures_of(pages) == {"Q10000": "it was deleted"}
    assert items_of(pages)["Q10007"].title == "Painting 2"


def test_a_query_that_takes_too_long_is_asked_for_less() -> None:
    wiki = museum(200)
    wiki.query_limit_max = 130
    assert len(items_of(read(wiki))) == 200
    wiki.query_limit_max = 10
    with pytest.raises(SourceUnavailable, match="goes on from the checkpoint"):
        read(wiki)


def test_lag_is_waited_for() -> None:
    wiki = museum(3)
    wiki.lagging = 2
    slept: list[float] = []
    with serving(wiki) as server, context_for(server.host, slept=slept) as context:
        assert len(items_of(list(source(server, context).read(None)))) == 3
    assert slept == [5, 5]
    wiki.lagging = 99
    with serving(wiki) as server, context_for(server.host) as context, pytest.raises(SourceUnavailable, match="maxlag"):
        list(source(server, context).read(None))


def test_a_question_that_is_not_understood_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor.sources.wikidata.mediawiki.TITLES_MAX", 60)
    monkeypatch.setattr(wikidata, "PAGE_SIZE", 60)
    with pytest.raises(SourceError, match="toomanyvalues"):
        read(museum(60))


@pytest.mark.parametrize(
    "keys", [{"instances_of": []}, {"instances_of": ["42"]}, {"classes": True, "instances_of": [HORSE]}]
)
def test_what_to_read_has_to_be_said(keys: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"(?s)instances_of and classes.*Either"):
        read(museum(1), **keys)


def test_long_names_are_asked_for_in_short_addresses() -> None:
    wiki = museum(0)
    for at in range(50):
        name = f"საქართველოს ეროვნული მუზეუმი, ხატი {at} - თამარ მეფის დროის ჭედური ხელოვნების ნიმუში.jpg"
        wiki.files[name] = File()
        wiki.entities[10_000 + at] = Entity(instance_of=PAINTING, pictures=[(name, "normal")])
    assert len(items_of(read(wiki))) == 50


def test_names_of_files_with_what_addresses_reserve() -> None:
    names = ['Say "yes" & no?.jpg', "50% + 50%.jpg", "L'été #1.jpg", "A;B=C~(1)!.jpg", "Plan.svg", "Scan.tif"]
    wiki = museum(0)
    for at, name in enumerate(names):
        wiki.files[name] = File(mime={"svg": "image/svg+xml", "tif": "image/tiff"}.get(name[-3:], "image/jpeg"))
        wiki.entities[10_000 + at] = Entity(
            instance_of=PAINTING, pictures=[(name, "normal"), ("Lost.pdf", "deprecated")]
        )
    found = items_of(read(wiki)).values()
    assert {unquote(item.image_url).rpartition("px-")[2].replace("_", " ") for item in found} == set(names)


@pytest.mark.parametrize(("width", "asked"), [(120, 120), (121, 250), (400, 500), (600, 960), (1280, 1280)])
def test_widths_are_those_that_wikimedia_makes(width: int, asked: int) -> None:
    wiki = museum(1)
    (item,) = items_of(read(wiki, width=width)).values()
    assert wiki.widths == {asked}
    assert f"/{asked}px-" in item.image_url


@pytest.mark.parametrize(
    ("html", "author"),
    [
        ('Unknown author<span style="display: none;">Unknown author</span>', "Unknown author"),
        ('<div class="fn"><bdi><a href="/w">Ann</a><br>Lee</bdi></div><div hidden>creator QS:P170</div>', "Ann Lee"),
        ('<table style="display:none"><tr><td>x<td>y</table>Bo &amp; Co', "Bo & Co"),
        ("Jos\u00e9 <small>(1900\u20131980)</small></div>", "Jos\u00e9 (1900\u20131980)"),
    ],
)
def test_an_author_is_what_is_shown(html: str, author: str) -> None:
    wiki = museum(1)
    wiki.files["Painting 0.jpg"].author = html
    assert [item.author for item in items_of(read(wiki)).values()] == [author]


def test_a_refusal_says_how_to_say_who_asks() -> None:
    wiki = museum(1)
    wiki.refuses = True
    with pytest.raises(SourceError, match="VISOR_USER_AGENT"):
        read(wiki)


@pytest.mark.parametrize("mime", ["video/webm", "application/pdf", "image/vnd.djvu", "audio/ogg", "image/x-xcf"])
def test_what_is_no_picture_is_told_by_its_format(mime: str) -> None:
    wiki = museum(2)
    wiki.files["Painting 1.jpg"].mime = mime
    pages = read(wiki)
    assert [item.title for item in items_of(pages).values()] == ["Painting 0"]
    assert failures_of(pages) == {"Q10007": f"its picture has the format {mime}"}


FIELDS = (
    "entities", "Q10000", "labels", "en", "claims", "P18", "mainsnak", "datavalue", "sitelinks", "enwiki",
    "title", "query", "normalized", "pages", "imageinfo", "thumburl", "mime", "sha1", "extmetadata", "Artist",
    "pageimage", "images", "continue",
)  # fmt: skip


def without(document: Any, field: str, instead: object) -> Any:
    """An answer in which every field of that name holds something else."""
    if isinstance(document, list):
        return [without(one, field, instead) for one in document]
    if not isinstance(document, dict):
        return document
    return {name: instead if name == field else without(one, field, instead) for name, one in document.items()}


@pytest.mark.parametrize("instead", [None, [], "x"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_something_else_is_as_none(field: str, instead: object) -> None:
    """PHP writes what is empty as a list; one odd entity must not end every run at the same place."""
    wiki = museum(2)
    wiki.entities[10_000].articles = {"en": "An article"}
    wiki.entities[10_007].pictures, wiki.entities[10_007].articles = [], {"en": "An article"}
    wiki.articles["en"]["An article"] = Article("Painting 1.jpg", ["Painting 1.jpg", "Painting 0.jpg"])

    def odd(request: Request) -> Reply:
        return Reply.json(without(json.loads(wiki(request).body), field, instead))

    with serving(odd) as server, context_for(server.host) as context:
        (page,) = source(server, context).read(None)
    assert len(page.items) + len(page.failed) == 2


@pytest.mark.parametrize("instead", [None, [], "x"])
@pytest.mark.parametrize("field", ["n", "value"])
def test_a_row_without_a_number_is_asked_for_again(field: str, instead: object) -> None:
    wiki = museum(2)

    def odd(request: Request) -> Reply:
        return Reply.json(without(json.loads(wiki(request).body), field, instead))

    unavailable = pytest.raises(SourceUnavailable, match="a row that has no number")
    with serving(odd) as server, context_for(server.host) as context, unavailable:
        list(source(server, context).read(None))


def test_a_class_without_instances_is_told() -> None:
    (page,) = read(museum(0))
    assert [PAINTING in reason for reason in page.passed_over] == [True]
