"""The methods of an index, wherever it is, and the result of a search."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, overload

import msgspec

from visor.config_errors import misfit
from visor.errors import BadRequest, UnknownItem
from visor.schema.items import ITEM_ID, CrawlRun, Item
from visor.schema.push import PushAnswer, PushedItem, PushItem
from visor.schema.search import (
    CompareAnswer,
    CompareRequest,
    Filters,
    Match,
    SearchAnswer,
    SearchRequest,
)
from visor.search.request import Query, given_path, picture_of, plain, request_of

if TYPE_CHECKING:
    import numpy as np

    from visor.export.export import ExportReport
    from visor.index.merge.merge import MergeReport
    from visor.web.schema import ItemAnswer, StatsAnswer

NewItem: TypeAlias = PushItem | Item | Mapping[str, Any]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of items done, and of all items."""
ANY = Filters()
PUSH_ITEMS_MAX = 1_000
"""Items in one push."""


class SearchResult(SearchAnswer, frozen=True, kw_only=True):
    """The answer to a search, and a sequence of its matches, best first. A slice is a tuple of matches."""

    @overload
    def __getitem__(self, index: int) -> Match: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Match, ...]: ...
    def __getitem__(self, index: int | slice) -> Match | tuple[Match, ...]:
        return self.matches[index]

    def __len__(self) -> int:
        return len(self.matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    def __repr__(self) -> str:
        return f"<SearchResult: {len(self)} matches, confidence {self.confidence:.2f}>"

    @property
    def vector(self) -> np.ndarray:
        """The query's unit vector, float32 of shape (d,): a further search with it does not need the image. Of shape
        (0,) if the answer has none: words alone, `link=False`, or a picture with nothing to compare."""
        import numpy as np

        from visor.index.format.looks import LOOK_BYTES

        numbers = np.frombuffer(base64.b64decode(self.query.vector or ""), "<f2").astype(np.float32)
        # A photo that was answered across the gap has labels and colours after its unit vector.
        with np.errstate(invalid="ignore", over="ignore"):
            is_alone = abs(float(np.linalg.norm(numbers)) - 1) < 0.01
        return numbers if is_alone else numbers[: -LOOK_BYTES // 2]


Sequence.register(SearchResult)


class Index(ABC):
    """An index of items with one image each. `visor.open` and `visor.connect` make one.

    Use it as a context manager, or call `close`. Several threads may share it. It prints nothing, and every error that
    it raises on purpose is a `VisorError`.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release all resources. May be called twice."""

    @overload
    def search(
        self, query: Query | None = None, k: int = 12, filters: Filters = ANY, **options: Any
    ) -> SearchResult: ...
    @overload
    def search(
        self, query: Sequence[Query], k: int = 12, filters: Filters = ANY, **options: Any
    ) -> list[SearchResult]: ...
    def search(self, query: Any = None, k: int = 12, filters: Filters = ANY, **options: Any) -> Any:
        """The items nearest to an image, or those that match words.

        Args:
            query: The path of an image (`str` or `Path`), its http(s) URL, its encoded bytes, a Pillow image, a vector
                of shape (d,) as in `SearchResult.vector`, an item or an item's id (32 hexadecimal digits). A
                list of these, or an array of shape (n, d), returns a list of results. None: `text` or `examples` alone.
            k: How many matches, from 1 to 200.
            filters: Conditions that a match must meet.
            options: `text` (words that matches are about), `mode` ("exact" compares with every vector, "fast" scans
                codes first), `metric` (a SciPy metric by name, on the full vectors), `box` (x, y, width and height, as
                fractions, of the part to search for), `exclude` (boxes that do not count), `facets` (True also counts
                the facet values), `examples` (further queries, each alone or with a weight from -1 to 1: `[(other,
                -0.5)]` is not to be like it; `query` may then be None), `sort`, `nearest` (with `sort`: order only so
                many of the nearest), `min_confidence`, `min_similarity`, `variety`, `group` (False: every picture of a
                product), `regions` (True also suggests parts of the picture to search for), `leave_out` (ids), `seen`
                (what a device saw in a picture that is not sent, in place of `query`) and `after` (the `next` of an
                earlier result), as the body of `POST /v1/search` has them (docs/http.md).

        Raises:
            BadRequest: The query is of another kind, a path cannot be read, or an option is not valid.
            UnknownItem: The item is not in the index.
            ImageError: The image cannot be fetched or decoded.
        """
        several = _is_several(query)
        asked = [request_of(one, {"k": k, "filters": filters, **options}) for one in (query if several else [query])]
        found = self._search_all(asked)
        return found if several else found[0]

    def pages(
        self, query: Query | None = None, k: int = 200, filters: Filters = ANY, **options: Any
    ) -> Iterator[SearchResult]:
        """The results of a search, `k` at a time, to the end. Arguments and errors as in `search`."""
        if _is_several(query):
            valid, remedy = "One picture at a time", "Call it for each"
            raise BadRequest("Pages cannot be requested for several pictures at once", valid=valid, remedy=remedy)
        page = self.search(query, k, filters, **options)
        yield page
        while page.next is not None:
            page = self.search(query, k, filters, **options | {"after": page.next})
            yield page

    def compare(self, first: Query, second: Query) -> CompareAnswer:
        """What two pictures have in common, whether or not they are in the index.

        Args:
            first, second: As `query` of `search`, but no vectors.

        Returns:
            `verdict`, `similarity`, `confidence`, and the pictures aligned with each other (base64).
        """
        pictures, uploads = zip(*(picture_of(one) for one in (first, second)), strict=True)
        return self._compare(CompareRequest(first=pictures[0], second=pictures[1]), uploads)

    def add(self, items: Iterable[NewItem], *, progress: Progress | None = None) -> PushAnswer:
        """Add items, or replace those with the same key. Their source is `push`, whatever an `Item` names.

        Args:
            items: Each a `PushItem`, a mapping of its fields (`key` and `image_url` at least) or an `Item`. An opened
                index also accepts the path of an image as `image_url`.

        Returns:
            The result for each item, in order: `state` is `accepted`, or `refused` with its `reason`. An opened index
            has embedded the accepted items; a server does so a little later.

        Raises:
            KeyRequired: The server requires its owner's key: `visor.connect(url, key=…)`.
        """
        if not isinstance(items, Iterable):
            found = f"A value of type {type(items).__name__} holds no items"
            raise BadRequest(found, valid="Mappings, PushItems or Items", remedy="Pass a list of these")
        waiting = iter(items)
        outcomes: list[PushedItem] = []
        while chunk := [_push_item(item) for item in islice(waiting, PUSH_ITEMS_MAX)]:
            start = len(outcomes)
            pushed = self._push(chunk, progress)
            outcomes += (msgspec.structs.replace(item, line=start + item.line) for item in pushed.items)
        accepted = sum(item.state == "accepted" for item in outcomes)
        return PushAnswer(accepted=accepted, refused=len(outcomes) - accepted, items=tuple(outcomes))

    def add_folder(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        confirm_loss: bool = False,
        progress: Progress | None = None,
    ) -> CrawlRun:
        """Add the images below a folder; called again, follow its new, changed and deleted files. Raises as `crawl`.

        Args:
            name: The source's; by default the folder's own, with a mark of its path if another folder has that name.
            confirm_loss: As in `crawl`.
        """
        folder = given_path(path).resolve()
        if not folder.is_dir():
            raise BadRequest(f"{folder} is not a folder", valid="A folder of images", remedy="Correct the path")
        keys = {"kind": "folder", "path": str(folder)}
        return self.crawl(keys, name=name or self._name_of(folder), confirm_loss=confirm_loss, progress=progress)

    def _name_of(self, folder: Path) -> str:
        return folder.name

    @abstractmethod
    def crawl(
        self,
        source: str | Mapping[str, Any],
        *,
        name: str | None = None,
        limit: int | None = None,
        confirm_loss: bool = False,
        progress: Progress | None = None,
    ) -> CrawlRun:
        """Read a source, embed its changes and make them searchable. The run's `state` is `empty` if there is nothing.

        Args:
            source: The name of a source in visor.toml, or the keys that its section would have (docs/sources.md).
            name: The name of a source that is given by its keys; by default their `kind`.
            limit: Stop after this many items, and delete none: the next call continues from there.
            confirm_loss: Delete missing items even if they are more than half of the catalogue.

        Raises:
            SettingsError: There is no such source, or its configuration is not valid.
            SourceError: Its catalogue cannot be read, or more than half of it is gone.
            BadRequest: The index is on a server, which crawls on its own.
        """

    @abstractmethod
    def get(self, item: str | Item) -> ItemAnswer:
        """An item by its id: `.item`, with `.width`, `.height`, `.labels` and `.indexed_at`.

        Raises:
            UnknownItem: It is not in the index.
        """

    @abstractmethod
    def delete(self, item: str | Item) -> None:
        """Delete an item that was added with `add`. A missing item is not an error.

        Raises:
            UnknownItem: It comes from a source, which would bring it back.
        """

    @abstractmethod
    def compact(self) -> MergeReport:
        """Merge added items into segments and calibrate the confidence; `add` leaves that to you, `crawl` does it.

        Raises:
            BadRequest: The index is on a server, which compacts on its own.
        """

    @abstractmethod
    def export(
        self,
        folder: str | Path,
        *,
        title: str = "Visor",
        originals: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write page, model and index into a folder that any static file server can serve. Called again, it writes the
        changes.

        Args:
            title: The title of the page.
            originals: Copy the pictures of local folders, too, with everything in the files. A small copy of each is
                written in any case.

        Raises:
            BadRequest: The index is empty or on a server, or the folder contains something else.
            StoreError: Part of the index cannot be read, or the folder cannot be written to; the previous export stays
                whole.
        """

    @abstractmethod
    def stats(self) -> StatsAnswer:
        """How many images it holds, of which model, and how well its searches work."""

    def _search_all(self, asked: list[tuple[SearchRequest, bytes | None]]) -> list[SearchResult]:
        return [self._search(request, upload) for request, upload in asked]

    @abstractmethod
    def _search(self, request: SearchRequest, upload: bytes | None) -> SearchResult: ...

    @abstractmethod
    def _compare(self, request: CompareRequest, uploads: tuple[bytes | None, bytes | None]) -> CompareAnswer: ...

    @abstractmethod
    def _push(self, items: list[PushItem], progress: Progress | None) -> PushAnswer: ...


def _push_item(item: NewItem) -> PushItem:
    if not isinstance(item, PushItem | Item | Mapping):
        found, valid = f"{item!r:.200} of type {type(item).__name__} cannot be added", "Mappings, PushItems or Items"
        raise BadRequest(found, valid=valid, remedy="Pass a list of these")
    key = item.get("key", "") if isinstance(item, Mapping) else item.key
    fields: dict[str, Any] = dict(plain(item, f"the item {key!a:.64}"))
    if isinstance(item, Item):
        fields = {name: value for name, value in fields.items() if name not in ("id", "source", "attributes")}
    try:
        return msgspec.convert(fields, PushItem)
    except msgspec.ValidationError as exc:
        found, valid, remedy = misfit(exc, PushItem, fields)
        raise BadRequest(f"The item {key!r:.64} cannot be added: {found}", valid=valid, remedy=remedy) from exc


def _is_several(query: Any) -> bool:
    """Whether a query is a list of queries, or an array of shape (n, d)."""
    return isinstance(query, list | tuple) or (hasattr(query, "dtype") and getattr(query, "ndim", 1) == 2)


def id_of(item: str | Item) -> str:
    """The id of an item. Raises `BadRequest` if it is not an id, and `UnknownItem` if no item can have it."""
    found = item.id if isinstance(item, Item) else item
    if not isinstance(found, str):
        valid, remedy = "An Item or its id", "Give `match.item`, or its `id`"
        raise BadRequest(f"A value of type {type(item).__name__} is not an item", valid=valid, remedy=remedy)
    if not ITEM_ID.match(found):
        valid, remedy = "32 hexadecimal digits, as answers give them", "Take it from an answer"
        raise UnknownItem(f"{found[:64]!a} is not an item's id", valid=valid, remedy=remedy)
    return found


def closed() -> BadRequest:
    """The error of a call after `close`."""
    return BadRequest("The index is closed", valid="Calls before `close`, or within `with`", remedy="Open it again")
