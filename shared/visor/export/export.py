"""Export: writes an index as files for a page that needs no server. A second export writes what changed.

The manifest is written last, so an export that is interrupted anywhere leaves the one before whole. The next one uses
what is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from visor import __version__
from visor.confidence.features import CoverageProjection
from visor.confidence.model import Calibration
from visor.errors import BadRequest, Conflict, ModelNotBuilt, SettingsError, StoreError
from visor.export.files import CONFIG, DATA, NETWORK, ExportFiles, File
from visor.export.items import ItemWriter, page_records
from visor.export.judge import constants, judged_by, sample_numbers
from visor.export.rows import Part, PartRows, PartWriter, parts_of
from visor.free_tier.cost_model import PAGE_ROWS, PAGES_MAX
from visor.index.format.container import json_tensor, rows_in_blocks
from visor.index.format.ids import id_text
from visor.index.format.projection import Projection
from visor.index.search.snapshot import Snapshot
from visor.models.device import device_model
from visor.models.store import NetworkFile, check_file, read_manifest
from visor.near_duplicates.fingerprint import HASH_BYTES
from visor.schema.items import ITEM_ID, IndexedItem, Item, Record
from visor.search.feedback import Feedback
from visor.settings import Settings
from visor.storage.local.objects import FolderObjects
from visor.storage.objects import ObjectStore

FORMAT = 1


class Space(Record, frozen=True, kw_only=True):
    dimension: int
    dimensions: int
    scale: float = 0.0
    file: File | None = None


class ExportReport(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What one export did. Sizes are in bytes, as on the disk and as downloaded."""

    images: int
    bytes: dict[str, int]
    """`index` without pages, `first_visit` of it, `pages`, `pictures`, `model`, and `page`: the page itself."""
    written: int
    """Files that were new or changed …"""
    written_bytes: int
    """… and their sizes."""
    removed: int
    """Files deleted because nothing has needed them for a day."""
    pictures: int
    """Small pictures of items without a web address."""
    lost: int
    """Such items whose file could not be read."""
    unknown: int
    """Rows whose item is no longer known, or may not be shown."""


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Writes one index.

    Args:
        snapshot: What is exported.
        items: Returns the items of these ids, without those that are not known.
        feedback: What was said about matches.
        model: The directory of the model that made the vectors.
        label_words: As `App.label_words`.
        page: Folder of the built page; None: the page is there already, and so may the model's files be.
        config: Contents of the page's config.json.
        read_image, originals: As those of `ItemWriter`.
    """

    snapshot: Snapshot
    fingerprint: str
    items: Callable[[Sequence[str]], Mapping[str, IndexedItem]]
    feedback: Iterable[Feedback]
    model: Path
    label_words: list[dict[str, float]]
    page: Path | None
    settings: Settings
    config: Mapping[str, Any] = field(default_factory=dict)
    read_image: Callable[[Item], bytes] | None = None
    originals: bool = False

    def write(
        self, site: ObjectStore, *, now: float, advance: Callable[[int], None] = lambda rows: None
    ) -> ExportReport:
        """Write the export to `site`.

        Args:
            now: Seconds since 1970.
            advance: Called with the number of rows written since the last call.

        Raises:
            BadRequest: The index is empty.
            StoreError: Part of the index cannot be read, or it cannot be written; what was there before is whole.
        """
        if self.snapshot.notice is not None:
            raise StoreError(
                self.snapshot.notice.removesuffix(" `visor check` says what to do."),
                valid="An index that can be read whole",
                remedy="Mend it: `visor check --repair`; the export before is as it was",
            )
        if not self.snapshot.images:
            raise BadRequest(
                "The index holds no images", valid="One image or more", remedy="Index some: visor index FOLDER"
            )
        files = ExportFiles(site, now, "" if self.page else DATA)
        try:
            return self._write(files, advance)
        except StoreError as exc:
            raise StoreError(
                f"The export stopped: {exc.found}",
                valid="A folder that this user may write, with free space",
                remedy="Make room and run it again: it continues where it stopped, and the previous export is whole",
            ) from exc

    def _write(self, files: ExportFiles, advance: Callable[[int], None]) -> ExportReport:
        page_bytes = 0 if self.page is None else self._page(files, self.page)
        stored = Calibration.of(self.snapshot.manifest.calibration if self.snapshot.manifest else {})
        calibration = stored.within(self.snapshot.space, self.snapshot.images)
        projection = self.snapshot.space if isinstance(self.snapshot.space, Projection) else None
        is_measured_full = calibration.is_fitted and calibration.space is None
        is_across = calibration.across is not None and calibration.across.is_on
        model, model_bytes = self._model(files, closer=is_across)
        has_vectors = projection is None or is_measured_full
        writer = PartWriter(files, self.snapshot, has_vectors=has_vectors, is_across=is_across)
        shown = ItemWriter(files, self.read_image, self.settings.pixels_max, self.originals)
        rows = list(parts_of(self.snapshot))
        unknown = 0
        parts: list[Part] = []
        for one in rows:
            pages = []
            for page, count, missing in self._pages(files, shown, one):
                pages.append(page)
                unknown += missing
                advance(count)
            parts.append(writer.write(one, pages))
        judge = files.content(
            "judge",
            {
                "judge": json_tensor(judged_by(calibration, self.label_words)),
                "sample_rows": sample_numbers(self.snapshot, rows),
            },
        )
        space = self._space(files, projection)
        hidden = self._hidden(files)
        first = [space.file, judge, hidden, *(f for p in parts for f in (p.columns, p.hashes, p.codes_high))]
        first += [part.vectors for part in parts if projection is None]
        rest = [f for p in parts for f in (p.codes_low, p.looks, None if projection is None else p.vectors)]
        sizes = {
            "first_visit": sum(file.bytes for file in first if file is not None),
            "index": sum(file.bytes for file in (*first, *rest) if file is not None),
            "pages": sum(part.pages_bytes for part in parts),
            "pictures": shown.pictures["bytes"] + shown.pictures["originals_bytes"],
            "model": model_bytes,
        }
        manifest = self._manifest(parts, space, judge, hidden, sizes)
        if self.page is not None:
            for path in sorted(self.page.glob("*.*")):
                if path.name != CONFIG:
                    files.put(path.name, path.read_bytes())
        # Devices embed with it: next to the manifest before, it would make vectors of another model.
        files.put(f"{DATA}model.json", model)
        removed = files.publish(manifest)
        return ExportReport(
            images=self.snapshot.images,
            bytes={**sizes, "page": page_bytes, "manifest": len(manifest)},
            written=len(files.written),
            written_bytes=sum(files.written.values()),
            removed=removed,
            pictures=shown.pictures["there"],
            lost=shown.pictures["lost"],
            unknown=unknown,
        )

    def _pages(self, files: ExportFiles, shown: ItemWriter, part: PartRows) -> Iterator[tuple[File, int, int]]:
        """The pages of items, each with how many rows it has, and how many of them have none."""
        hashes = part.live.block.hashes
        for start, stop in rows_in_blocks(len(part.rows), page_rows(self.snapshot.images)):
            ids = [id_text(row) for row in part.ids[start:stop]]
            records = page_records(shown, self.items(ids), ids)
            whole = hashes[part.rows[start:stop], :HASH_BYTES]
            page = files.content("page", {"hashes": whole, "items": json_tensor(records)})
            yield page, len(records), records.count(None)

    def _page(self, files: ExportFiles, page: Path) -> int:
        """Write the page's files that are named by their content. Those that name them come with the manifest."""
        # Written first, so that an interrupted export is recognised as one.
        files.put(CONFIG, msgspec.json.encode({**self.config, "export": f"./{DATA}"}))
        size = 0
        for path in sorted(path for path in page.rglob("*") if path.is_file()):
            name = path.relative_to(page).as_posix()
            size += path.stat().st_size
            if "/" in name:
                files.put(name, path.read_bytes())
        return size

    def _model(self, files: ExportFiles, *, closer: bool) -> tuple[bytes, int]:
        """The description of the model, and the bytes of its networks as stored here: a device checks and unpacks
        them."""
        manifest = read_manifest(self.model)
        described = device_model(manifest, closer=closer)
        stored = {file.sha256: file for file in manifest.files}
        lying = []
        try:
            for told in described.files:
                file = stored[told.sha256]
                there = files.network(file.sha256, partial(self._read, file))
                digest = there.name.rpartition("-")[2].removesuffix(NETWORK)
                lying.append(msgspec.structs.replace(told, url=there.name, size_bytes=there.bytes, sha256=digest))
        except ModelNotBuilt:
            if self.page is not None:
                raise
            # A merge has no networks. Then the server embeds pictures.
            described, lying = device_model(manifest, allowed=False), []
        size = sum(file.size_bytes for file in lying)
        return msgspec.json.encode(msgspec.structs.replace(described, files=tuple(lying), size_bytes=size)), size

    def _read(self, file: NetworkFile) -> bytes:
        return check_file(self.model, file).read_bytes()

    def _space(self, files: ExportFiles, projection: Projection | None) -> Space:
        space = self.snapshot.space
        if projection is None:
            return Space(dimension=space.dimension, dimensions=space.dimension)
        file = files.chunk(
            "space",
            [projection.name.encode()],
            lambda: {
                "origin": projection.origin,
                "matrix": projection.matrix.astype(np.float16),
                "inverse": CoverageProjection(projection).inverse,
            },
            about={"scale": projection.scale},
        )
        return Space(
            dimension=projection.dimension, dimensions=projection.dimensions, scale=projection.scale, file=file
        )

    def _hidden(self, files: ExportFiles) -> File | None:
        """Pairs of items that were said not to match; feedback on other queries is not exported."""
        hidden: dict[str, set[str]] = {}
        for one in self.feedback:
            pair = one.query, one.item
            if all(ITEM_ID.match(item) and self.snapshot.find(item) for item in pair):
                hidden.setdefault(one.query, set()).add(one.item)
        if not hidden:
            return None
        return files.content("hidden", {"hidden": json_tensor({q: sorted(i) for q, i in sorted(hidden.items())})})

    def _manifest(
        self, parts: list[Part], space: Space, judge: File, hidden: File | None, sizes: Mapping[str, int]
    ) -> bytes:
        snapshot = self.snapshot
        known = {"hidden": hidden} if hidden is not None else {}
        written = {
            "made_by": __version__,
            "index": {
                "images": snapshot.images,
                "generation": snapshot.generation,
                "model": self.fingerprint,
            },
            "space": space,
            "has_products": snapshot.has_products,
            "products": snapshot.products,
            "attributes": [
                {"name": name, "type": type_, "items": snapshot.declared[name, type_]}
                for name, type_ in sorted(snapshot.types.items())
            ],
            "page_rows": page_rows(snapshot.images),
            "parts": parts,
            "judge": judge,
            **known,
            "constants": constants(),
            "settings": {"unsafe_query": self.settings.unsafe_query, "k_max": self.settings.k_max},
            "bytes": sizes,
        }
        digest = hashlib.sha256(msgspec.json.encode(written)).hexdigest()[:32]
        return msgspec.json.encode({"format": FORMAT, "id": digest, **written})


def page_rows(images: int) -> int:
    """Rows of one page of items, so that there are at most `PAGES_MAX` pages: each may be a billed write."""
    rows = PAGE_ROWS
    while images > PAGES_MAX * rows:
        rows *= 2
    return rows


@contextmanager
def site_in(folder: Path) -> Iterator[ObjectStore]:
    """The files of a folder, which is made if it is missing. Raises `BadRequest` where it cannot be, or where something
    else than an export is in it, and `Conflict` while another process exports into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadRequest(
            f"{folder} cannot be written to: {exc.strerror}", valid="A folder", remedy="Name another one"
        ) from exc
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            valid, remedy = "One export into a folder at a time", "Run it again when the other has ended"
            raise Conflict(f"Another process exports into {folder}", valid=valid, remedy=remedy) from exc
        except OSError:
            pass  # a disk without locks
        if _is_taken(folder):
            raise BadRequest(
                "The folder is not empty, and what is in it is not an export",
                valid="A new or empty folder, or one that `visor export` wrote",
                remedy="Name another folder",
            )
        try:
            yield FolderObjects(folder)
        finally:
            # Nothing that only a store needs goes to a server.
            (folder / ".lock").unlink(missing_ok=True)
            shutil.rmtree(folder / ".unfinished", ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_taken(folder: Path) -> bool:
    """Whether something other than an export is there. A store would take files with a dot for its own."""
    if all(path.name.startswith(".") for path in folder.iterdir()):
        return False
    try:
        return "export" not in msgspec.json.decode((folder / CONFIG).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return True


def page_folder(page: Path) -> Path:
    """The folder of the built page. Raises `SettingsError` if it was not built."""
    if not (page / "index.html").is_file():
        raise SettingsError(
            f"There is no built page in {page}",
            valid="The page as `npm run build` in frontend/ makes it; an installed package brings it along",
            remedy="Run `make page` in the checkout, or install visor-search",
        )
    return page
