"""Products: every source says which items are pictures or variants of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.unit.sources.catalogue_server import Reply, context_for, serving

from visor.errors import SettingsError
from visor.sources.config import SourcesFile
from visor.sources.parse.schema_org import product_rows
from visor.sources.registry import open_source

SHOES = {"title": "Shoe", "img": "/a.jpg"}
SHOP: Any = {
    "kind": "shop_api",
    "items": "@",
    "fields": {"key": "to_string(id)", "title": "title", "image_url": "img"},
    "paging": {"style": "none"},
}
FEED = {"kind": "feed", "format": "json_lines"}
PICTURES = {"additional_image_link": ["https://x.example/2.jpg", "https://x.example/3.jpg"]}
CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]], dict[str, str | None]]] = [
    (
        "a feed's item_group_id",
        FEED,
        [{"id": "1", "image_link": "/1.jpg", "item_group_id": "g"}, {"id": "2", "image_link": "/2.jpg"}],
        {"1": "g", "2": None},
    ),
    (
        "a feed's additional pictures",
        FEED | {"pictures": "all"},
        [{"id": "1", "image_link": "/1.jpg", **PICTURES}, {"id": "2", "image_link": "/2.jpg"}],
        {"1": "1", "1#1": "1", "1#2": "1", "2": None},
    ),
    (
        "a feed's additional pictures of a variant",
        FEED | {"pictures": "all", "attributes": {"item_group_id": "parent id"}},
        [{"id": "1", "image_link": "/1.jpg", "parent id": 77, **PICTURES}],
        {"1": "77", "1#1": "77", "1#2": "77"},
    ),
    (
        "an API's variants",
        SHOP | {"variants": "variants"},
        [{"id": 5, **SHOES, "variants": [{"id": 51}, {"id": 52}]}, {"id": 6, **SHOES}],
        {"51": "5", "52": "5", "6": None},
    ),
    (
        "an API's parent ids",
        SHOP | {"fields": SHOP["fields"] | {"group": "parent_id"}},
        [{"id": 1, **SHOES, "parent_id": 9}, {"id": 2, **SHOES, "parent_id": None}],
        {"1": "9", "2": None},
    ),
]


@pytest.mark.parametrize(("keys", "rows", "groups"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_source_names_the_product(
    keys: dict[str, Any], rows: list[dict[str, Any]], groups: dict[str, str | None]
) -> None:
    lines = keys["kind"] == "feed"
    body = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    with serving(lambda request: Reply(body.encode())) as server, context_for(server.host) as context:
        pages = list(open_source("s", {**keys, "url": f"{server.url}/all"}, context).read(None))
    assert {item.key: item.group for page in pages for item in page.items} == groups


def test_a_side_car_names_the_product(tmp_path: Path) -> None:
    for name, said in (("a", {"group": "tent"}), ("b", {"group": 7}), ("c", {})):
        Image.new("RGB", (20, 20), "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    with context_for("localhost") as context:
        source = open_source("f", {"kind": "folder", "path": str(tmp_path)}, context)
        assert {i.key: i.group for page in source.read(None) for i in page.items} == {
            "a.png": "tent",
            "b.png": "7",
            "c.png": None,
        }


@pytest.mark.parametrize(
    "document",
    [
        {
            "@type": "ProductGroup",
            "productGroupID": "G1",
            "hasVariant": [{"@type": "Product", "sku": "a", "image": "a"}],
        },
        {"@type": "ProductGroup", "@id": "G1", "hasVariant": [{"@type": "Product", "sku": "a", "image": "a"}]},
        {"@type": "Product", "sku": "a", "image": "a", "inProductGroupWithID": "G1"},
        {
            "@type": "Product",
            "sku": "a",
            "image": "a",
            "isVariantOf": {"@type": "ProductGroup", "productGroupID": "G1"},
        },
        {"@type": "Product", "sku": "a", "image": "a", "isVariantOf": {"@type": "ProductModel", "name": "G1"}},
    ],
    ids=["group", "group without id", "id", "variant of", "model"],
)
def test_schema_org_names_the_product(document: dict[str, Any]) -> None:
    (row,) = product_rows(document)
    assert row["item_group_id"] == "G1"


def test_attributes_are_declared_by_name_and_type() -> None:
    declared = SourcesFile('[attributes]\ncolour = "keyword"\n"net weight" = "number"\nsold = "flag"\nmade = "date"\n')
    assert declared.attributes == {"colour": "keyword", "net weight": "number", "sold": "flag", "made": "date"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attributes = 1", "line 1: .*not a table"),
        ('[attributes]\ncolour = "text"', "line 2: .*keyword, number, flag, date"),
        ('[attributes]\n\ncollection = "keyword"', "line 3: .*cannot name an attribute"),
        ("[attributes]\n" + "\n".join(f'a{n} = "flag"' for n in range(33)), "At most 32"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        SourcesFile(text)
