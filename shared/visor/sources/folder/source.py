"""`folder`: a tree of images. The sub-folder is the collection; EXIF and XMP, a JSON file next to an image and a
JSON list of images describe them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from errno import ELOOP
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePosixPath
from posixpath import normpath
from shlex import quote
from typing import Annotated, Any, ClassVar, NamedTuple
from unicodedata import normalize

from msgspec import Meta

from visor.errors import DropItem, SettingsError, SourceError
from visor.imaging.sniff import ENDINGS
from visor.schema.items import Item
from visor.sources.contract import Page, Place, RowErrors, SourceConfig, SourceContext, page_of, slices
from visor.sources.folder.exif import Exif, read_exif, read_xmp
from visor.sources.parse.described import described
from visor.sources.parse.item import make_item
from visor.sources.parse.json import NotJson, parse_json
from visor.sources.parse.price import DecimalSign, PriceReader
from visor.sources.parse.text import TITLE_LENGTH_MAX, iso_date, plain_text

PAGE_SIZE = 256
"""Images in one page."""
SYSTEM = (
    "@eadir", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "@recently-snapshot", "lost+found", "__macosx",
    "system volume information", ".thumbnails", ".@__thumb", ".trash*", "._*",
)  # fmt: skip
"""Names, in lower case, of folders and files that systems put among pictures: thumbnails, bins, halves of files."""
SILENT = frozenset({".json", ".xmp", ".db", ".ini"})
"""Endings of files that belong to pictures or to the system: not reported as left out."""
NAMED_BY = ("image", "file_name", "filename", "file", "path")
"""Names under which an entry of a list may have the path of its image, relative to the list."""
LIST_BYTES_MAX = 64 * 2**20
TAKEN = "taken"
_TAKEOUT = ".supplemental-metadata"
_TAKEOUT_LENGTH = 46
"""Characters of a side-car's name, without its ending, that Google Takeout keeps."""
_EDITED = re.compile(
    r"-(?:edited|effects|smile|mix|bearbeitet|bewerkt|edytowane|modificato|modifié|(?:ha )?editado|editat|編集済み)$",
    re.I,
)
"""How Takeout names versions of a photo that Google Photos made, in the language of its owner."""


class _File(NamedTuple):
    """An image file, and the JSON and XMP files next to it."""

    path: Path
    json: Path | None
    xmp: Path | None


class _Beside:
    """The files with one ending in a folder, and the picture that each belongs to.

    Args:
        files: All files of the folder.
        names_of: How the file of a picture may be called.
    """

    def __init__(self, files: Sequence[str], ending: str, names_of: Callable[[str], Iterable[str]]) -> None:
        self._names_of = names_of
        self._exact = {normalize("NFC", name): name for name in files if name.lower().endswith(ending)}
        pictures = (name for name in files if Path(name).suffix.lower() in ENDINGS)
        # If there are none, the names of a million pictures are not kept four times over.
        owned = {one for name in pictures for one in names_of(name)} if self._exact else set()
        # If both come from a disk that ignores case: files that are not another picture's by their exact name.
        self._folded = {one.casefold(): name for one, name in self._exact.items() if one not in owned}
        of_pictures = {one.casefold() for one in owned} if self._folded else set()
        self.others = [self._folded[one] for one in sorted(self._folded.keys() - of_pictures)]
        """The files that belong to no picture."""

    def of(self, picture: str) -> str | None:
        """The file that belongs to a picture."""
        names = [*self._names_of(picture)] if self._exact else []
        found = chain((self._exact.get(one) for one in names), (self._folded.get(one.casefold()) for one in names))
        return next(filter(None, found), None)


class FileDefaults(SourceConfig, frozen=True, kw_only=True):
    """Values of the items of a tree of files that neither file nor folder provides."""

    collection: str | None = None
    """Of images in no sub-folder."""
    licence: str | None = None
    """Of images that name none."""
    author: str | None = None
    """Of images that name none."""
    decimal: DecimalSign | None = None
    """The sign before decimals in prices that are texts."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to leave out: `*_small.jpg` and `drafts` are names, `2019/*` is a path."""


class FolderConfig(FileDefaults, frozen=True, kw_only=True):
    """The keys of a `folder` source."""

    path: Annotated[str, Meta(min_length=1)]
    """The folder."""
    hidden: bool = False
    """Also read files and folders whose name starts with a dot."""


def left_out(path: str, exclude: tuple[str, ...]) -> str:
    """Why a file or folder is passed over, by its name or a part of its path; empty if it is not."""
    name = path.rpartition("/")[2]
    if any(fnmatchcase(name.lower(), pattern) for pattern in SYSTEM):
        return "a folder or file of the system, such as @eaDir or #recycle"
    is_excluded = any(fnmatchcase(one, by.rstrip("/")) for by in exclude for one in (name, path))
    return "left out by exclude" if is_excluded else ""


def no_picture(path: str) -> str:
    """Why a file is passed over by its ending; empty if it is a picture's ending, or there is nothing to report."""
    ending = PurePosixPath(path).suffix
    if ending.lower() in ENDINGS | SILENT or path.endswith("/"):
        return ""
    is_ending = re.fullmatch(r"\.\w{1,5}", ending)
    return f"{ending if is_ending else 'other'} files: not an ending of the pictures that are read"


class FolderSource:
    """Reads the tree in the order of its paths; the checkpoint is the last path. An image's key is its path.

    Symbolic links to folders are not followed, so there are no loops; those to files only within the folder.
    """

    Config: ClassVar[type[SourceConfig]] = FolderConfig

    def __init__(self, name: str, config: FolderConfig, context: SourceContext) -> None:
        self.name = name
        self._config = config
        self._root = Path(config.path).expanduser().resolve()
        if any("\ud800" <= character <= "\udfff" for character in str(self._root)):
            raise SettingsError(
                f"The folder {str(self._root)!r} has a name that is not UTF-8",
                remedy="Rename it: an index keeps paths as text",
            )
        self._prices = PriceReader(config.decimal)
        self._listed: dict[str, Mapping[str, Any]] = {}

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        if not self._root.is_dir():
            raise SourceError(
                f"Source '{self.name}': {self._root} is not a folder",
                remedy=f"Mount what belongs there, or correct sources.{self.name}.path in visor.toml. If it is gone "
                f"or was moved: `visor source forget {quote(self.name)}`, then `visor index` with the new path",
            )
        after = tuple(str(checkpoint["path"]).split("/")) if checkpoint and "path" in checkpoint else ()
        root, found = {"root": str(self._root)}, bool(after)
        told = RowErrors()
        self._listed = {}
        for files, is_last in slices(self._walk(self._root, after, told), PAGE_SIZE):
            found = found or bool(files)
            if is_last and not found:
                told.pass_over("no picture in the folder")
            at = None if is_last else {"path": self._key(files[-1][0]), **root}
            yield page_of(
                ((self._key(file[0]), file) for file in files),
                self._item,
                checkpoint=at,
                next_pass=root if is_last else None,
                errors=told,
            )
            told.clear()

    def _walk(self, folder: Path, after: tuple[str, ...], told: RowErrors) -> Iterator[_File]:
        """The images of a folder and its sub-folders, in order, after the path of those parts; and their side-cars."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries
                )
        except OSError as exc:
            told.add(Place(self._key(folder)), f"the folder cannot be read: {exc.strerror}")
            return
        files = [name for name, is_folder, _ in names if not is_folder]
        beside, xmp = _Beside(files, ".json", sidecar_names), _Beside(files, ".xmp", _xmp_names)
        for name in beside.others:
            self._list(folder / name, told)
        for name, is_folder, is_link in names:
            if name.startswith(".") and not self._config.hidden:
                continue
            if after and (name < after[0] or (name == after[0] and not is_folder)):
                continue
            path = folder / name
            if os.fsencode(name).decode("utf-8", "ignore") != name:
                # It could not be written into a key or a checkpoint.
                told.add(ascii(self._key(path)), "its name is not UTF-8")
            elif reason := left_out(self._key(path), self._config.exclude):
                told.pass_over(reason)
            elif is_folder:
                yield from self._walk(path, after[1:] if after and name == after[0] else (), told)
            elif is_link and path.is_dir():
                told.add(self._key(path), "a symbolic link to a folder is not followed")
            elif path.suffix.lower() in ENDINGS:
                found, more = beside.of(name), xmp.of(name)
                yield _File(path, folder / found if found else None, folder / more if more else None)
            elif reason := no_picture(name):
                told.pass_over(reason)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _item(self, file: _File, errors: RowErrors) -> Item:
        path, beside, xmp = file
        key = self._key(path)
        real = self._file(path)
        status = real.stat()
        modified = f"{status.st_mtime_ns}-{status.st_size}"
        said, exif = self._said(key, beside, errors), read_exif(real)
        taken = said.pop(TAKEN, None)
        if xmp is not None:
            exif = self._xmp(key, xmp, errors).or_else(exif)
        exif = exif._replace(date=exif.date or taken)
        return file_item(self.name, key, path.as_uri(), said, self._config, exif, modified=modified)

    def _file(self, path: Path) -> Path:
        """The file that a path leads to. Raises `DropItem` if it may not or cannot be read."""
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._root):
                raise DropItem("it leads out of the folder, as a symbolic link")
            if not real.is_file():  # opening a pipe would wait for its writer
                raise DropItem("it cannot be read: it is a folder, a pipe or a device, not a file")
            real.open("rb").close()
        except (OSError, RuntimeError) as exc:
            # For a link that leads to itself, some versions of Python raise a different error.
            raise DropItem(f"it cannot be read: {getattr(exc, 'strerror', os.strerror(ELOOP))}") from exc
        return real

    def _xmp(self, key: str, path: Path, errors: RowErrors) -> Exif:
        """The contents of the XMP file next to an image; a file that cannot be read is reported."""
        try:
            return read_xmp(self._file(path).read_bytes())
        except (DropItem, OSError, ValueError) as exc:
            why = str(getattr(exc, "strerror", None) or exc).removeprefix("it ")
            errors.add(key, f"{path.name} {why}", dropped=False)
            return Exif()

    def _json(self, path: Path) -> Any:
        """The contents of a JSON file of the folder. Raises `DropItem` with the reason if it cannot be read."""
        try:
            real = self._file(path)
            if (size := real.stat().st_size) > LIST_BYTES_MAX:
                raise DropItem(f"it has {size:,} bytes; at most {LIST_BYTES_MAX:,} are read")
            return parse_json(real.read_bytes())
        except (OSError, NotJson) as exc:
            raise DropItem(f"it cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc

    def _list(self, path: Path, errors: RowErrors) -> None:
        """Take the descriptions from a JSON list of images, if the file is one."""
        try:
            found = self._json(path)
        except DropItem as drop:
            errors.add(self._key(path), drop.reason, dropped=False)
            return
        lists = [one for one in found.values() if isinstance(one, list)] if isinstance(found, Mapping) else [found]
        for row in chain.from_iterable(one for one in lists if isinstance(one, list)):
            named = (row.get(name) for name in NAMED_BY) if isinstance(row, Mapping) else ()
            if image := next((one for one in named if isinstance(one, str)), None):
                place = PurePosixPath(self._key(path)).parent / image.replace("\\", "/")
                self._listed[normalize("NFC", normpath(place))] = row

    def _said(self, key: str, beside: Path | None, errors: RowErrors) -> dict[str, Any]:
        """The contents of the file next to an image or of a list; a file that cannot be read is reported. `TAKEN`: the
        time according to Takeout."""
        if beside is None:
            listed = self._listed.get(normalize("NFC", key))
            return {} if listed is None else described(key, listed, self._prices, errors)
        try:
            values = self._json(beside)
            if not isinstance(values, Mapping):
                raise DropItem("it cannot be read: it is not a JSON object")
        except DropItem as drop:
            errors.add(key, f"{beside.name} {drop.reason.removeprefix('it ')}", dropped=False)
            return {}
        said, taken = described(key, values, self._prices, errors), values.get("photoTakenTime")
        return said | {TAKEN: _taken(taken.get("timestamp"))} if isinstance(taken, Mapping) else said


def _taken(timestamp: Any) -> str | None:
    try:
        return iso_date(float(timestamp) or None)
    except (TypeError, ValueError):
        return None


def sidecar_names(name: str) -> Iterator[str]:
    """Possible names of an image file's side-car, in Unicode's composed form; the first that exists counts."""
    name = normalize("NFC", name)
    stem, dot, ending = name.rpartition(".")
    yield f"{name}.json"
    yield f"{stem}.json"
    # Google Takeout's names: cut off, and with the number of a namesake at the end.
    number = re.search(r"\(\d+\)\Z", stem)
    first = _EDITED.sub("", stem[: number.start()] if number else stem) + dot + ending
    for whole in (first + _TAKEOUT, first):
        yield whole[:_TAKEOUT_LENGTH] + (number[0] if number else "") + ".json"


def _xmp_names(name: str) -> Iterator[str]:
    name = normalize("NFC", name)
    yield f"{name}.xmp"
    yield f"{name.rpartition('.')[0]}.xmp"


def file_item(
    source: str,
    key: str,
    image_url: str,
    said: dict[str, Any],
    config: FileDefaults,
    exif: Exif,
    *,
    etag: str | None = None,
    modified: str | None = None,
) -> Item:
    """The item of an image file whose key is its path: values from its owner first, then its EXIF, then the defaults.

    Args:
        said: As `described` returns it, or nothing.
    """
    path = PurePosixPath(key)
    folder = path.parent.as_posix()
    otherwise = {
        "title": plain_text(exif.title or _title(path), TITLE_LENGTH_MAX),
        "description": plain_text(exif.description) or None,
        "collection": folder if folder != "." else config.collection,
        "date": exif.date,
        "licence": exif.copyright or config.licence,
        "author": exif.artist or config.author,
    }
    fields = said | {name: said.get(name) or value for name, value in otherwise.items()}
    return make_item(source, key, image_url, image_etag=etag, image_modified=modified, **fields)


def _title(path: PurePosixPath) -> str:
    return " ".join(path.stem.replace("_", " ").replace("-", " ").split())
