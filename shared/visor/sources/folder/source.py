"""`folder`: a tree of images. The sub-folder is the collection; EXIF and a JSON file beside an image describe it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import msgspec

from visor.errors import DropItem, SourceError
from visor.schema.items import Item
from visor.sources.contract import Page, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.folder.exif import Exif, read_exif
from visor.sources.parse.item import make_item
from visor.sources.parse.text import TITLE_LENGTH_MAX, plain_text

ENDINGS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
PAGE_SIZE = 256
"""Images in one page."""


class FileDefaults(SourceConfig, frozen=True, kw_only=True):
    """What the items of a tree of files have where neither file nor folder says it."""

    collection: str | None = None
    """Of images that lie in no sub-folder."""
    licence: str | None = None
    author: str | None = None


class FolderConfig(FileDefaults, frozen=True, kw_only=True):
    """The keys of a `folder` source."""

    path: str
    hidden: bool = False
    """Also read files and folders whose name starts with a dot."""


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """`NAME.json` or `NAME.jpg.json` beside an image. Other keys are ignored."""

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
    """Reads the tree in the order of its paths; the checkpoint is the last path. An image's key is its path.

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
                f"Source '{self.name}': {self._root} is not a folder",
                remedy=f"Correct sources.{self.name}.path, or mount what belongs there",
            )
        after = tuple(str(checkpoint["path"]).split("/")) if checkpoint else ()
        unreadable = RowErrors()
        for paths, is_last in slices(self._walk(self._root, after, unreadable), PAGE_SIZE):
            at = None if is_last else {"path": self._key(paths[-1])}
            page = page_of(((self._key(path), path) for path in paths), self._item, checkpoint=at)
            failed = (*page.failed, *unreadable.sample)
            yield msgspec.structs.replace(page, failed=failed, failed_more=page.failed_more + unreadable.more)
            unreadable.sample, unreadable.more = [], 0

    def _walk(self, folder: Path, after: tuple[str, ...], unreadable: RowErrors) -> Iterator[Path]:
        """The images of a folder and its sub-folders, by path, that come after the path of those parts."""
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
                # It could not be written into a key or a checkpoint.
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
        modified = f"{status.st_mtime_ns}-{status.st_size}"
        said = self._sidecar(path, errors)
        return file_item(self.name, key, path.as_uri(), said, self._config, read_exif(real), modified=modified)

    def _sidecar(self, path: Path, errors: RowErrors) -> Sidecar:
        for beside in (path.with_name(path.name + ".json"), path.with_suffix(".json")):
            if not beside.is_file():
                continue
            try:
                return msgspec.json.decode(beside.read_bytes(), type=Sidecar)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
                errors.add(self._key(path), f"{beside.name} is left out: {exc}", dropped=False)
        return Sidecar()


def file_item(
    source: str,
    key: str,
    image_url: str,
    said: Sidecar,
    config: FileDefaults,
    exif: Exif,
    *,
    etag: str | None = None,
    modified: str | None = None,
) -> Item:
    """The item of an image file whose key is its path: what its owner said first, then its EXIF, then the defaults."""
    path = PurePosixPath(key)
    folder = path.parent.as_posix()
    return make_item(
        source,
        key,
        image_url,
        page_url=said.page_url,
        title=plain_text(said.title or exif.title or _title(path), TITLE_LENGTH_MAX),
        description=plain_text(said.description or exif.description) or None,
        price=said.price,
        currency=said.currency,
        collection=said.collection or (folder if folder != "." else config.collection),
        country=said.country,
        date=said.date or exif.date,
        licence=said.licence or exif.copyright or config.licence,
        author=said.author or exif.artist or config.author,
        image_etag=etag,
        image_modified=modified,
        extra=said.extra,
    )


def _title(path: PurePosixPath) -> str:
    return " ".join(path.stem.replace("_", " ").replace("-", " ").split())
