"""Words: how texts are cut, folded and stemmed, which items are found by them, and in which order."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.index.index_fixtures import MODEL, Shop, clustered, ids_of, keys_of

from visor.confidence.model import CONFIDENT
from visor.confidence.words import words_confidence
from visor.index.merge.merge import merge
from visor.index.merge.policy import MergePolicy
from visor.index.search.hits import Order
from visor.index.words.analysis import fold, query_terms, terms_of, words_of
from visor.index.words.query import TYPO_TO
from visor.index.words.text_index import Part, SegmentWords, TextIndex, Words
from visor.schema.collections import ITEMS
from visor.schema.items import BATCH_SIZE_MAX, FacetRow, IndexedItem, Item, as_document, item_id, item_texts, said_of
from visor.schema.search import Filters
from visor.settings import LANGUAGES
from visor.storage.documents import Put

NONE = Filters()

TITLES = {
    "lemon": "Lemon",
    "lime": "Lime, not a lemon",
    "granny": "Granny Smith, a green apple",
    "juice": "Apple juice",
    "berries": "Strawberries",
    "creme": "Crème brûlée à l'eau",
    "kaese": "Käse aus Öttingen",
    "nino": "Zapatos para niños",
    "shirt": "T-Shirt",
    "cat": "白い猫の皿",
    "rouble": "Ёлочные игрушки",
}


def row(title: str, **more: Any) -> FacetRow:
    return FacetRow.of(Item(id="0" * 32, source="test", key="k", image_url="", title=title, **more))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """All titles, in one shard."""
    shop = Shop(tmp_path)
    shop.add(list(TITLES), clustered(len(TITLES)), facets=[row(title) for title in TITLES.values()])
    return shop


def found(shop: Shop, text: str, **options: Any) -> list[str]:
    keys = dict(zip(ids_of(list(TITLES)), TITLES, strict=True))
    hits = shop.searcher(**options).search(None, k=12, text=text).hits
    return [keys.get(hit.id, hit.id) for hit in hits]


def merged(shop: Shop, **options: Any) -> None:
    merge(shop.objects, shop.documents, model=MODEL, clock=shop.clock, **options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red SHOES, 42", ["Red", "SHOES", "42"]),
        ("men's T-Shirt", ["men", "s", "mens", "T", "Shirt", "TShirt"]),
        ("白い猫", ["白い", "い猫", "猫"]),
        ("猫", ["猫"]),
        ("iPhone用ケース", ["iPhone", "用ケ", "ケー", "ース", "ス"]),
        ("हिन्दी", ["हिन्दी"]),
        ("👍 — …", []),
        ("apple ❤️ 1️⃣", ["apple", "1️⃣"]),
        ("\u0301 ـ ـَ", []),
        ("Schoko\u00adlade", ["Schoko\u00adlade"]),
        ("می\u200cخواهم", ["می", "خواهم", "میخواهم"]),
        ("T‑Shirt", ["T", "Shirt", "TShirt"]),
        ("", []),
    ],
)
def test_a_text_is_cut_into_words_with_their_places(text: str, words: list[str]) -> None:
    cut = list(words_of(text))
    assert [word.text for word in cut] == words
    assert all(text[word.start : word.end] == word.text for word in cut if not word.is_extra or word.is_pair)


@pytest.mark.parametrize(
    ("word", "other", "language"),
    [
        ("Apples", "apple", "english"),
        ("ＡＰＰＬＥ", "apple", "english"),
        ("Schuhe", "Schuhen", "german"),
        ("STRASSE", "Straße", "german"),
        ("kase", "Käse", "german"),
        ("brulees", "brûlée", "french"),
        ("zapatos", "zapato", "spanish"),
        ("nino", "niños", "spanish"),
        ("smorrebrod", "Smørrebrød", "danish"),
        ("игрушка", "игрушки", "russian"),
        ("елка", "Ёлка", "russian"),
        ("ΚΑΦΈΣ", "καφες", "greek"),
        ("ｶﾞﾗｽ", "ガラス", "english"),
        ("Ｃafé", "cafe\u0301", "french"),
        ("schokolade", "Schoko\u00adlade", "german"),
        ("كتاب", "كتـــاب", "english"),
        ("23", "٢٣", "english"),
        ("２३", "23", "english"),
        ("apple", "𝐀𝐩𝐩𝐥𝐞", "english"),
        ("ISPARTA", "ısparta", "english"),
        ("istanbul", "İSTANBUL", "english"),
    ],
)
def test_a_word_is_found_by_its_other_forms(word: str, other: str, language: str) -> None:
    assert {*query_terms(word, (language,))} & {*terms_of(other, (language,))}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("りんごのジュース", unicodedata.normalize("NFD", "りんごのジュース")),
        ("사과 주스", unicodedata.normalize("NFD", "사과 주스")),
        ("リンゴジュース", "ﾘﾝｺﾞｼﾞｭｰｽ"),
        ("Äpfel à l'eau", unicodedata.normalize("NFD", "Äpfel à l'eau")),
        ("м'ята", "мʼята"),
        ("ด ๒๓", "ด 23"),
    ],
)
def test_texts_are_cut_alike_however_their_letters_are_written(text: str, other: str) -> None:
    cut = list(words_of(other))
    assert [fold(word.text) for word in cut] == [fold(word.text) for word in words_of(text)]
    assert [fold(other[word.start : word.end]) for word in cut if not word.is_extra] == [
        fold(word.text) for word in cut if not word.is_extra
    ]


ROUNDS, ROWS = 4, 6
FORMS = (
    str,
    str.upper,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: unicodedata.normalize("NFC", text),
)
PIECES = """
apple Äpfel apfel a\u0301 ß STRAẞE strasse İ ı ﬁ ﬀ Ａ １ ٢ ๒ 猫 白い ﾘﾝｺﾞ り ん ご か\u3099 사과 น้ำ كتاب كتـاب ـ ﷺ שָׁ ש ё
е \u200c \u200d \u00ad \u200f \u0301 \ufe0f ❤️ 👩\u200d🍳 1️⃣ - ' ’ ʼ ‑ ~~ .* ( | ½ ⅳ 𝐀𝐩 ⑴ ⒈a t⒈a ǅ ſ naïve T-Shirt tshirt
lemon lemno lemo aple plexy the für
"""
BITS = PIECES.split()


def test_what_is_found_is_what_is_marked_in_whatever_script() -> None:
    # The index finds, `TextQuery.where` marks and counts for the confidence: both read the same texts, each for itself.
    random = Random(1)

    def text() -> str:
        return "".join(random.choice([*BITS, " "]) for _ in range(random.randint(1, 6)))

    for _ in range(ROUNDS):
        said = [{"title": text(), "description": text()} for _ in range(ROWS)]
        texts = [{name: [one] for name, one in about.items()} for about in said]
        places = np.zeros(ROWS, np.int64), np.arange(ROWS)
        words = Words([Part(TextIndex.of(texts, LANGUAGES), LANGUAGES, *places)])
        for asked in (text(), *(form(about["title"]) for about in said for form in FORMS)):
            query = words.query(asked)
            scores = {score: np.zeros(ROWS, np.float32) for score in ("said", "named", "names")}
            for score in scores:
                found = words.find(query, None, score)
                scores[score][found.rows] = found.scores
            for about, *by_index in zip(said, *scores.values(), strict=True):
                marked, met = query.where(about)
                assert by_index == pytest.approx([met.said, met.named, met.names], abs=1e-4), (asked, about)
                assert all(0 <= start < end <= len(one.text) for one in marked for start, end in one.spans)
        for about in said:
            met = {form(about["title"]): words.query(form(about["title"])).where(about)[1] for form in FORMS}
            assert len({*met.values()}) == 1, met


@pytest.mark.parametrize(("word", "other"), [("lemon", "melon"), ("pear", "pea"), ("pineapple", "apple")])
def test_other_words_are_not_taken_for_one(word: str, other: str) -> None:
    assert not {*query_terms(word, LANGUAGES)} & {*terms_of(other, LANGUAGES)}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("lemon", ["lemon", "lime"]),
        ("LEMONS", ["lemon", "lime"]),
        ("lemno", ["lime", "lemon"]),
        ("leomn x", ["lime", "lemon"]),
        ("appls", ["juice", "granny"]),
        ("appels ", ["granny", "juice"]),
        ("lemo", ["lemon", "lime"]),
        ("straw", ["berries"]),
        ("strwaberry ", ["berries"]),
        ("lemn", ["lime", "lemon"]),
        ("aple ", ["granny", "juice"]),
        ("lmie", []),
        ("limes green", ["lime", "granny"]),
        ("mango", []),
        ("straw ", []),
        ("green apples", ["granny", "juice"]),
        ("apple juice", ["juice", "granny"]),
        ("creme brulee", ["creme"]),
        ("eau", ["creme"]),
        ("kase", ["kaese"]),
        ("zapatos niño", ["nino"]),
        ("tshirt", ["shirt"]),
        ("t-shirts", ["shirt"]),
        ("白い猫", ["cat"]),
        ("猫", ["cat"]),
        ("елочные", ["rouble"]),
        ("bicycle", []),
    ],
)
@pytest.mark.parametrize("is_merged", [False, True])
def test_items_are_found_by_what_is_said_of_them(shop: Shop, text: str, keys: list[str], is_merged: bool) -> None:
    if is_merged:
        merged(shop)
    assert found(shop, text) == keys


def test_what_is_near_to_a_word_beyond_all_measure_is_not_looked_for(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.add(keys_of(2), clustered(2), facets=[row("x" + "a" * TYPO_TO), row("b" * (TYPO_TO + 2))])
    searcher = shop.searcher()
    assert [hit.id for hit in searcher.search(None, k=2, text="a" * TYPO_TO).hits] == ids_of(["k0"])
    assert not searcher.search(None, k=2, text="b" * (TYPO_TO + 1) + " ").hits
    assert not searcher.search(None, k=2, text="ﷺ" * 400).hits, "18 letters each"


def test_an_item_that_was_just_added_is_weighed_as_the_others(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.add(keys_of(60), clustered(60), facets=[row("Red shoes")] * 30 + [row("Green apple")] * 30)
    merged(shop)
    shop.add(["new"], clustered(1, seed=3), facets=[row("Green shoes for apples")])
    hit = shop.searcher().search(None, k=1, text="green shoes").hits[0]
    assert hit.id == item_id("test", "new")


def test_updates_and_tombstones_hold_for_words(shop: Shop) -> None:
    merged(shop)
    shop.update("lemon", 2, row("Citron"))
    shop.update("granny", 0, row("Older than what is there"))
    shop.delete("lime", 2)
    for _ in range(2):
        assert found(shop, "lemon") == []
        assert found(shop, "citrno") == ["lemon"]
        assert found(shop, "older") == []
        merged(shop)
    shop.add(["lemon"], clustered(1), version=3, facets=[row("Lemon once more")])
    assert found(shop, "citron") == []
    assert found(shop, "lemon") == ["lemon"]


def test_an_update_that_was_merged_before_its_item_came_holds(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.add(["other"], clustered(1))
    shop.update("lemon", 2, row("Citron"))
    merged(shop)
    shop.add(["lemon"], clustered(1), facets=[row("Lemon")])
    for _ in range(2):
        assert found(shop, "lemon") == []
        assert found(shop, "citron") == ["lemon"]
        merged(shop)


def test_what_was_indexed_without_texts_is_named_and_the_rest_is_found(shop: Shop) -> None:
    shop.add(["old"], clustered(1, seed=5), facets=[FacetRow(collection="Lemons")])
    merged(shop)
    searcher = shop.searcher()
    hits = searcher.search(None, k=5, text="lemon")
    assert [hit.id for hit in hits.hits] == ids_of(["lemon", "lime"])
    assert hits.notice is not None
    assert hits.notice.startswith("1 picture is not found by words")
    assert searcher.search(clustered(1)[0], k=5).notice is None
    old = IndexedItem(
        item=Item(id=item_id("test", "old"), source="test", key="old", image_url="", title="Old lemons"),
        version=1,
        model=MODEL,
        shard="s",
        indexed_at="2026-01-01",
        width=1,
        height=1,
    )
    shop.documents.commit([Put(collection=ITEMS, key=old.item.id, data=as_document(old))])
    merged(shop, fill=True)
    hits = shop.searcher().search(None, k=5, text="lemon")
    assert {hit.id for hit in hits.hits} == {*ids_of(["lemon", "lime", "old"])}
    assert hits.notice is None
    assert merge(shop.objects, shop.documents, model=MODEL, clock=shop.clock, fill=True).steps == 0
    merged(shop, fill=True, languages=("arabic",))
    assert found(shop, "strawberry ") == []


def test_a_merge_ends_where_texts_are_nowhere_to_be_had(shop: Shop) -> None:
    # Neither a document that is lost, nor rows that are all deleted, have words to wait for.
    shop.add(["old"], clustered(1, seed=5), facets=[FacetRow(collection="Lemons")])
    options: dict[str, Any] = {"model": MODEL, "clock": shop.clock, "fill": True, "budget_s": 20}
    assert merge(shop.objects, shop.documents, **options).finished
    for key in (*TITLES, "old"):
        shop.delete(key, version=9)
    assert merge(shop.objects, shop.documents, **options).finished
    assert found(shop, "lemon") == []


@pytest.mark.slow
def test_filters_hold_for_words_however_rare_the_value(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    facets = [row("Red shoes", collection="rare" if number == 1_999 else "shoes") for number in range(2_000)]
    shop.add(keys_of(2_000), clustered(2_000), facets=facets)
    merged(shop, policy=MergePolicy(step_rows=4_096))
    hits = shop.searcher().search(None, k=5, text="shoes", filters=Filters(collection=("rare",))).hits
    assert [hit.id for hit in hits] == ids_of(["k1999"])
    every = shop.searcher().search(None, k=200, text="red shoe").hits
    assert len({hit.id for hit in every}) == 200


def test_a_filter_leaves_what_matches_best_ahead_wherever_it_is_stored(tmp_path: Path) -> None:
    shop, keys = Shop(tmp_path), keys_of(500)
    facets = [row("Lamp", collection="other" if number % 4 else "c") for number in range(400)]
    facets += [row("Lamp of a shop that sold everything for the garden", collection="c")] * 100
    shop.add(keys[:400], clustered(400), facets=facets[:400])
    merged(shop)
    shop.add(keys[400:], clustered(100), facets=facets[400:])
    short = {i for number, i in enumerate(ids_of(keys[:400])) if not number % 4}
    hits = shop.searcher().search(None, text="lamp", k=60, filters=Filters(collection=("c",))).hits
    assert {hit.id for hit in hits} <= short


def test_a_picture_and_words_make_one_ranking(shop: Shop) -> None:
    vectors = clustered(len(TITLES))
    searcher = shop.searcher()
    like_juice = vectors[list(TITLES).index("juice")]
    plain = searcher.search(like_juice, k=11).hits
    assert [hit.text_score for hit in plain] == [None] * 11
    said = {hit.id: hit for hit in searcher.search(like_juice, k=11, text="apple").hits}
    order, before = list(said), [hit.id for hit in plain]
    juice, granny = ids_of(["juice", "granny"])
    assert order[0] == before[0] == juice
    assert said[juice].similarity == pytest.approx(1, abs=1e-3)
    assert order.index(granny) < before.index(granny)
    assert {i for i, hit in said.items() if hit.text_score} == {juice, granny}
    assert [i for i in order if i != granny] == [i for i in before if i != granny]


def test_a_word_in_a_language_that_is_not_set_is_found_as_it_stands(shop: Shop) -> None:
    merged(shop, languages=("arabic",))
    assert found(shop, "strawberries") == ["berries"]
    assert found(shop, "strawberry jam") == []


@pytest.mark.parametrize(
    ("text", "limit", "words"),
    [
        ("fresh AP", 5, ["Apricot", "Apple"]),
        ("ap", 1, ["Apricot"]),
        ("CREM", 5, ["Crème"]),
        ("kas", 5, ["Käse"]),
        ("ts", 5, ["T-Shirt"]),
        ("t-sh", 5, ["Shirt"]),
        ("白", 5, ["白い"]),
        ("елоч", 5, ["Ёлочные"]),
        ("acm", 5, ["ACME"]),
        ("beach", 5, ["Beachwear"]),
        ("sand", 5, ["sandal"]),
        ("however", 5, []),
        ("apple ", 5, []),
        ("", 5, []),
        ("xyz", 5, []),
    ],
)
@pytest.mark.parametrize("is_merged", [False, True])
def test_suggestions_are_words_as_the_catalogue_writes_them(
    shop: Shop, text: str, limit: int, words: list[str], is_merged: bool
) -> None:
    known = row("Apricot", description="However it is said.", collection="Beachwear", extra={"brand": "ACME"})
    shop.add(
        keys_of(3),
        clustered(3, seed=8),
        facets=[msgspec.structs.replace(known, labels=("sandal",), facet_labels=("sandal",))] * 3,
    )
    if is_merged:
        merged(shop)
    assert shop.searcher().complete(text, limit) == words


def test_words_cost_a_cold_start_no_operation(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    merged(shop)
    reads: list[str] = []
    get = shop.objects.get
    monkeypatch.setattr(shop.objects, "get", lambda name, **part: (reads.append(name), get(name, **part))[1])
    searcher = shop.searcher()
    before = len(reads)
    assert searcher.search(None, k=1, text="lemon").hits
    assert len(reads) == before


def test_highlights_say_where_the_words_stand(shop: Shop) -> None:
    hits = shop.searcher().search(None, k=1, text="green aplpe")
    assert hits.text is not None
    long = "It is said. " * 40 + "At last a green thing, and an Apple." + " And so on." * 40
    highlights, met = hits.text.where(said_of(row("Äpples T-shirt", description=long, collection="Fruit")))
    assert met.said == pytest.approx(1.0)
    assert 0 < met.named == met.guessed < 1
    assert met.words == 2
    marked = {one.field: [one.text[start:end] for start, end in one.spans] for one in highlights}
    assert marked == {"title": ["Äpples"], "description": ["green", "Apple"]}
    assert len(highlights[1].text) < 300


@pytest.mark.parametrize(
    ("asked", "title", "description", "is_it"),
    [
        ("Granny Smith", "Granny Smith", "", True),
        ("granny smiht", "Granny Smith", "", True),
        ("Granny Smi", "Granny Smith", "", True),
        ("a Granny Smith for the pie", "Granny Smith pie", "", True),
        ("Orange Juice", "God Morgon Orange Juice", "", True),
        ("Royal Gala", "Pink Lady", "It reminds of Royal Gala.", False),
        ("Lemon", "Lime", "Tastes like a lemon, only stronger.", False),
        ("Green Bell Pepper", "Yellow Bell Pepper", "Sweeter than green peppers.", False),
        ("Vine Tomato", "Beef Tomato", "", False),
        ("Brown Cap Mushroom", "Brown Bread", "", False),
        ("crispy and very juicy apple", "Royal Gala", "A crispy and very juicy apple.", True),
    ],
)
def test_a_name_is_surer_than_what_is_told_of_a_thing(
    tmp_path: Path, asked: str, title: str, description: str, is_it: bool
) -> None:
    shop = Shop(tmp_path)
    others = ["Banana", "Pear", "Oat Milk", "Carrot"] * 5
    rows = [row(title, description=description), *(row(other) for other in others)]
    shop.add(keys_of(len(rows)), clustered(len(rows)), facets=rows)
    hits = shop.searcher().search(None, k=1, text=asked)
    assert hits.text is not None
    met = hits.text.where(said_of(rows[0]))[1]
    assert (words_confidence(met) >= CONFIDENT) is np.bool_(is_it)
    assert words_confidence(met, 0.4, as_much=3) < words_confidence(met, 0.6, as_much=3) <= words_confidence(met, 0.6)


def test_no_item_brings_a_commit_near_the_limit_of_a_document() -> None:
    item = Item(id="0" * 32, source="s", key="k", image_url="", title="é" * 900, description="猫" * 30_000)
    texts = item_texts(item)
    size = sum(len(text.encode()) for text in texts.values())
    assert texts["title"] == item.title
    assert texts["description"]
    assert size <= 2_000
    assert size * BATCH_SIZE_MAX < 0.2 * 2**20


def test_what_is_said_is_title_description_collection_brand_category_and_labels() -> None:
    said = said_of(row("Title", description="About", collection="Things", extra={"brand": "Acme", "sku": "X1"}))
    assert said == {"title": "Title", "description": "About", "brand": "Acme", "collection": "Things", "labels": ""}


def test_the_shares_of_words_do_not_depend_on_how_often_they_are_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    titles = ["apple", "apple apple apple apple", "apple and many other words beside it which make the text longer"]
    shop.add(keys_of(3), clustered(3), facets=[row(title) for title in titles])
    vector = np.asarray(clustered(3)[2])
    hits = shop.searcher().search(vector, k=3, text="apple").hits
    assert hits[0].id == item_id("test", "k2")


@pytest.mark.parametrize("about", [{"version": 99, "languages": []}, {"version": 1, "languages": ["klingon"]}])
def test_words_of_a_later_visor_are_left_out(about: dict[str, Any]) -> None:
    assert SegmentWords.open(np.frombuffer(b"what it may be", np.uint8), about).index is None


def listed(shop: Shop, text: str, k: int = 7, vector: Any = None, filters: Filters = NONE, **order: Any) -> list[str]:
    """The ids of all pages."""
    searcher, after, ids = shop.searcher(), None, []
    while True:
        hits = searcher.search(vector, k=k, text=text, filters=filters, order=Order(**order, after=after))
        ids += [hit.id for hit in hits.hits]
        after = hits.next
        if after is None:
            return ids


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Sixty red shoes, four of a product, and sixty green apples; half of each merged."""
    shop = Shop(tmp_path_factory.mktemp("shelf"))
    rows = [
        row(
            f"Red shoe {number}" if number % 2 else f"Green apple {number}",
            price=float((number * 7) % 41),
            collection=f"c{number % 3}",
            group=f"g{number // 8}" if number % 2 else None,
        )
        for number in range(120)
    ]
    vectors = clustered(120, kinds=12)
    shop.add(keys_of(60), vectors[:60], facets=rows[:60])
    merged(shop)
    shop.add(keys_of(120)[60:], vectors[60:], facets=rows[60:])
    return shop


SHOES = {*ids_of([f"k{number}" for number in range(1, 120, 2)])}


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"sort": "price_up"},
        {"sort": "price_down", "similarity_min": None},
        {"variety": 0.5},
    ],
)
@pytest.mark.parametrize("text", ["red shoe", "shoes", "red"])
def test_pages_of_words_give_each_that_says_them_once(shelf: Shop, text: str, order: dict[str, Any]) -> None:
    ids = listed(shelf, text, **order)
    assert len(ids) == 60
    assert {*ids} == SHOES
    if "sort" in order:
        prices = [float((7 * number) % 41) for number in (ids_of(keys_of(120)).index(i) for i in ids)]
        assert prices == sorted(prices, reverse=order["sort"] == "price_down")


def test_pages_of_words_hold_to_filters_and_products(shelf: Shop) -> None:
    places = {i: number for number, i in enumerate(ids_of(keys_of(120)))}
    assert {places[i] % 3 for i in listed(shelf, "shoe", filters=Filters(collection=("c1",)))} == {1}
    products = [places[i] // 8 for i in listed(shelf, "shoe", by_product=True)]
    assert sorted(products) == [*range(15)]


@pytest.mark.parametrize("filters", [NONE, Filters(collection=("c1",))])
def test_facets_count_what_words_find(shelf: Shop, filters: Filters) -> None:
    searcher = shelf.searcher()
    found = searcher.search(None, k=200, text="shoes", filters=filters)
    counted = searcher.facets(filters, "shoes")
    assert counted.images == found.total == len(found.hits) == sum(value.count for value in counted.collection)
    assert counted.images < searcher.facets(filters).images
    assert searcher.facets(filters, "…!") == searcher.facets(filters)
    assert searcher.facets(filters, "xylophone").images == 0


def test_pages_of_a_picture_with_words_go_to_the_end_of_all(shelf: Shop) -> None:
    vector = clustered(120, kinds=12)[3]
    ids = listed(shelf, "red shoe", k=50, vector=vector)
    assert sorted(ids) == sorted(ids_of(keys_of(120)))
    near = listed(shelf, "red shoe", vector=vector, similarity_min=0.6)
    assert near == [i for i in ids if i in near]
    assert len(near) < 120
    first = shelf.searcher().search(vector, k=12, text="red shoe").hits
    assert [hit.id for hit in first] == ids[:12]
