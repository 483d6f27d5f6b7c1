"""Labels have short names, and an item is filtered by those that are sure or that its title confirms."""

from __future__ import annotations

import pytest

from visor.models.embedder import Embedder
from visor.models.store import read_manifest
from visor.schema.items import FacetRow, Item, Label, item_id
from visor.schema.labels import is_facet, short_name


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("banana", "banana"),
        ("kite (bird of prey)", "kite"),
        ("product packet / packaging", "product packet"),
        ("hen of the woods mushroom", "hen of the woods mushroom"),
        ("Granny Smith apple", "Granny Smith apple"),
        ("a cat having a striped coat", "tiger cat"),
        ("fruiting spike of a cereal plant", "ear of grain"),
        ("tights for gymnastics, a one-piece leotard, or a sport jersey", "leotard"),
    ],
)
def test_a_label_has_a_short_name(label: str, name: str) -> None:
    assert short_name(label) == name
    assert short_name(name) == name


def test_all_labels_have_short_names_of_their_own(embedder: Embedder) -> None:
    labels = set(read_manifest(embedder.directory).label_names)
    names = {short_name(label) for label in labels}
    assert len(names) == len(labels)
    assert max(map(len, names)) <= 32
    assert not any(sign in name for name in names for sign in "(/,")


@pytest.mark.parametrize(
    ("label", "probability", "title", "counts"),
    [
        ("hair clip", 0.59, "Bandana", False),
        ("hair clip", 0.6, "Bandana", True),
        ("strawberry", 0.2, "Strawberries", True),
        ("strawberry", 0.19, "Strawberry", False),
        ("wall clock", 0.3, "Clock", True),
        ("box turtle", 0.3, "Boxes", True),
        ("glass jar", 0.3, "Glasses", True),
        ("hook", 0.5, "", False),
    ],
)
def test_an_item_is_filtered_by_sure_labels(label: str, probability: float, title: str, counts: bool) -> None:
    assert is_facet(label, probability, title, None) == counts


def test_a_collection_confirms_a_label_as_a_title_does() -> None:
    item = Item(id=item_id("s", "1"), source="s", key="1", image_url="", title="Model 7", collection="T-shirts")
    labels = (Label(name="sweatshirt", probability=0.5), Label(name="T-shirt", probability=0.3))
    row = FacetRow.of(item, labels)
    assert row.labels == ("sweatshirt", "T-shirt")
    assert row.facet_labels == ("T-shirt",)
