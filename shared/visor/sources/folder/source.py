"""`folder`: a tree of pictures. The sub-folder is the collection; EXIF and a JSON file beside a picture describe it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from visor.errors import DropItem, SourceError
from visor.schema.items import Item, item_id
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of
from visor.sources.folder.exif import read_exif
from visor.sources.parse.text import TITLE_LENGTH_MAX, plain_text

ENDINGS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
PAGE_SIZE = 256
"""Pictures in one page."""


class FolderConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `folder` source."""

    path: str
    collection: str | None = None
    """Of pictures that lie in the folder itself."""
    licence: str | None = None
    author: str | None = None
    hidden: bool = False
    """Also read files and folders whose name starts with a dot."""


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """`NAME.json` or `NAME.jpg.json` beside a picture. Other keys are ignored."""

    title: str | None = None
    description: str | None = None
    page_url: str | None = None
    price: float | None = None
    currency: str | None = None
    collection: str | None = None
    country: str | None = None
    date: str | None = None
    licence: str | None = None
    author: str | None = None
    extra: dict[str, str] = {}


class FolderSource:
    """Reads the tree in the order of its paths; the checkpoint is the last path. A picture's key is its path.

    Symbolic links to folders are not followed, so there are no loops; those to files only within the folder.
    """

    Config: ClassVar[type[SourceConfig]] = FolderConfig

    def __init__(self, name: str, config: FolderConfig, context: SourceContext) -> None:
        self.name = name
        self._config = config
        self._root = Path(config.path).expanduser().resolve()

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        if not self._root.is_dir():
            raise SourceError(
                f"Source '{self.name}': {self._root} is no folder",
                remedy=f"Correct sources.{self.name}.path, or mount what belongs there",
            )
        after = tuple(str(checkpoint["path"]).split("/")) if checkpoint else ()
        unreadable = RowErrors()
        paths = self._walk(self._root, after, unreadable)
        chunk = list(islice(paths, PAGE_SIZE))
        while True:
            following = list(islice(paths, PAGE_SIZE))
            at = {"path": self._key(chunk[-1])} if following else None
            page = page_of(((self._key(path), path) for path in chunk), self._item, checkpoint=at)
            yield msgspec.structs.replace(
                page,
                failed=(*page.failed, *unreadable.sample),
                failed_more=page.failed_more + unreadable.more,
            )
            if not following:
                return
            unreadable.clear()
            chunk = following

    def _walk(self, folder: Path, after: tuple[str, ...], unreadable: RowErrors) -> Iterator[Path]:
        """The pictures of a folder and those below it, by path, that come after the path of those parts."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries
                )
        except OSError as exc:
            unreadable.add(self._key(folder), f"the folder cannot be read: {exc.strerror}")
            return
        for name, is_folder, is_link in names:
            if name.startswith(".") and not self._config.hidden:
                continue
            if after and (name < after[0] or (name == after[0] and not is_folder)):
                continue
            path = folder / name
            if os.fsencode(name).decode("utf-8", "ignore") != name:
                # Neither a key nor a checkpoint could be written with it.
                unreadable.add(ascii(self._key(path)), "its name is not UTF-8")
            elif is_folder:
                yield from self._walk(path, after[1:] if after and name == after[0] else (), unreadable)
            elif is_link and path.is_dir():
                unreadable.add(self._key(path), "a symbolic link to a folder is not followed")
            elif path.suffix.lower() in ENDINGS:
                yield path

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _item(self, path: Path, errors: RowErrors) -> Item:
        key = self._key(path)
        try:
            real = path.resolve(strict=True)
            status = real.stat()
            if not real.is_relative_to(self._root):
                raise DropItem("a symbolic link leads out of the folder")
            real.open("rb").close()
        except (OSError, RuntimeError) as exc:
            raise DropItem(f"it cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
        exif = read_exif(real)
        beside = self._sidecar(path, errors)
        collection = path.parent.relative_to(self._root).as_posix()
        return Item(
            id=item_id(self.name, key),
            source=self.name,
            key=key,
            image_url=path.as_uri(),
            page_url=beside.page_url,
            title=plain_text(beside.title or exif.title or _title(path), TITLE_LENGTH_MAX),
            description=plain_text(beside.description or exif.description) or None,
            price=beside.price,
            currency=beside.currency,
            collection=beside.collection or (collection if collection != "." else self._config.collection),
            country=beside.country,
            date=beside.date or exif.date,
            licence=beside.licence or exif.copyright or self._config.licence,
            author=beside.author or exif.artist or self._config.author,
            image_modified=f"{status.st_mtime_ns}-{status.st_size}",
            extra=beside.extra,
        )

    def _sidecar(self, path: Path, errors: RowErrors) -> Sidecar:
        for beside in (path.with_name(path.name + ".json"), path.with_suffix(".json")):
            if not beside.is_file():
                continue
            try:
                return msgspec.json.decode(beside.read_bytes(), type=Sidecar)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
                errors.add(self._key(path), f"{beside.name} is left out: {exc}", dropped=False)
        return Sidecar()


def _title(path: Path) -> str:
    return " ".join(path.stem.replace("_", " ").replace("-", " ").split())
