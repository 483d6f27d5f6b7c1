"""What the demo shop sells: records made from the packages of its pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from visor.errors import FormatError
from visor.schema.items import Record

CATALOGUE_FILE = "catalogue.json"


class Notice(Record, frozen=True, kw_only=True):
    """Who made the pictures, for the page and the shop's product pages."""

    title: str
    """What they are, in one sentence."""
    package: str
    version: str
    copyright: str
    licence: str
    """SPDX identifier."""
    licence_url: str
    url: str
    """Where they come from."""
    link_text: str
    text: str
    """Sentences to show, prices included."""


class Product(Record, frozen=True, kw_only=True):
    """One picture of the package, as an article."""

    id: int
    title: str
    description: str
    collection: str
    """Id of its collection."""
    picture: str
    """Path below the catalogue's folder, `/`-separated."""
    width: int
    height: int


class DemoCollection(Record, frozen=True, kw_only=True):
    id: str
    name: str


class DemoCatalogue(Record, frozen=True, kw_only=True):
    """All products, by collection and id."""

    notice: Notice
    collections: tuple[DemoCollection, ...]
    products: tuple[Product, ...]
    folder: str = ""
    """Folder of the pictures; not stored."""

    @classmethod
    def of(cls, notice: Notice, names: dict[str, str], products: list[Product], folder: Path) -> DemoCatalogue:
        """A catalogue in order. `names`: of each collection, by id."""
        return cls(
            notice=notice,
            collections=tuple(DemoCollection(id=id_, name=names[id_]) for id_ in sorted(names)),
            products=tuple(sorted(products, key=lambda product: (product.collection, product.id))),
            folder=str(folder),
        )

    def picture(self, product: Product) -> Path:
        return Path(self.folder) / product.picture

    def save(self, folder: Path) -> None:
        stored = msgspec.structs.replace(self, folder="")
        (folder / CATALOGUE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(stored)))

    @classmethod
    def load(cls, folder: Path) -> DemoCatalogue:
        """The catalogue that was saved in `folder`.

        Raises:
            FileNotFoundError: There is none.
            FormatError: It cannot be read.
        """
        body = (folder / CATALOGUE_FILE).read_bytes()
        try:
            return msgspec.structs.replace(msgspec.json.decode(body, type=cls), folder=str(folder))
        except msgspec.DecodeError as exc:
            raise FormatError(f"{folder / CATALOGUE_FILE} cannot be read: {exc}", remedy=f"Remove {folder}") from exc


def product_id(path: str) -> int:
    """Ten digits that stay the same for a picture's path, as a marketplace would number its articles."""
    digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
    return 1_000_000_000 + int.from_bytes(digest) % 9_000_000_000
