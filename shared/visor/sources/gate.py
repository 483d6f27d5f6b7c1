"""The gate through which everything that a source yields or raises passes: pages are pages, each error is Visor's, and
no item, reason or error holds a secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any
from urllib.parse import urlsplit

import msgspec

from visor.errors import SourceError, VisorError
from visor.schema.items import Item
from visor.sources.contract import Page, Place, RowErrors, Source, broken_page, remade
from visor.sources.secrets import Secrets

_OWN = frozenset({"id", "source"})
"""Made by Visor, not read from the catalogue."""
_REQUIRED = frozenset({"key", "image_url"})
_URLS = frozenset({"image_url", "page_url"})


@contextmanager
def guarded(name: str, secrets: Secrets) -> Iterator[None]:
    """Within this context, no error shows a secret, and one that the plug-in of the source `name` did not foresee is a
    `SourceError`."""
    hide = secrets.hide
    try:
        yield
    except VisorError as exc:
        VisorError.__init__(exc, hide(exc.found), valid=hide(exc.valid), remedy=hide(exc.remedy))
        raise
    except Exception as exc:
        found = hide(f"Source '{name}' failed: {type(exc).__name__}: {exc}{_place_of(exc)}")
        failed = SourceError(found, remedy="Correct the plug-in that reads it, or tell its author")
        if secrets:  # which the traceback of the cause may show
            raise failed from None
        raise failed from exc


def _place_of(exc: Exception) -> str:
    """The line of the plug-in at which it failed."""
    frames = extract_tb(exc.__traceback__)[2:]  # below this context and what entered it
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


class GuardedSource:
    """A source whose pages and errors have passed the gate. Everything else is the inner source's own."""

    def __init__(self, source: Source, secrets: Secrets) -> None:
        self.name = source.name
        self._source, self._secrets = source, secrets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        # An API may repeat a key in its error message.
        with guarded(self.name, self._secrets):
            for page in self._source.read(checkpoint):
                if broken := broken_page(page):
                    raise SourceError(
                        f"Source '{self.name}' failed: {broken}",
                        valid="Pages as `visor.sources.contract` has them",
                        remedy="Correct its plug-in: `visor.testing` checks this",
                    )
                yield self._guarded(page) if self._secrets else page

    def _guarded(self, page: Page) -> Page:
        page, hide = remade(page, self._without_secrets), self._secrets.hide
        failed = [msgspec.structs.replace(one, key=hide(one.key), reason=hide(one.reason)) for one in page.failed]
        passed_over = {hide(reason): count for reason, count in page.passed_over.items()}
        return msgspec.structs.replace(page, failed=tuple(failed), passed_over=passed_over)

    def _without_secrets(self, item: Item, errors: RowErrors) -> Item | None:
        lost: dict[str, Any] = {}
        for field in msgspec.structs.fields(Item):
            value = None if field.name in _OWN else getattr(item, field.name)
            if isinstance(value, str):
                safe: Any = self._safe(value, is_url=field.name in _URLS)
                safe = field.default if safe is None else safe
            elif isinstance(value, dict):
                safe = {name: text for name, text in value.items() if self._secrets.name_in(text) is None}
            else:
                continue
            if safe != value:
                lost[field.name] = safe
        if not lost:
            return item
        key = Place(self._secrets.hide(item.key)) if "key" in lost else item.key
        is_lost = not _REQUIRED.isdisjoint(lost)
        reason = f"its {', '.join(lost)} held a secret of the configuration, which was left out"
        errors.add(key, reason, dropped=is_lost)
        return None if is_lost else msgspec.structs.replace(item, **lost)

    def _safe(self, value: str, *, is_url: bool) -> str | None:
        """The value, or a URL without its query, if that holds no secret. A host is no secret: its name is public."""
        if not is_url:
            return value if self._secrets.name_in(value) is None else None
        try:
            parts = urlsplit(value)
        except ValueError:
            return None
        if parts.scheme == "file":
            return value
        for less in (parts, parts._replace(query="")):
            if self._secrets.name_in(less._replace(scheme="", netloc=less.netloc.rpartition("@")[0]).geturl()) is None:
                return less.geturl() if less is not parts else value
        return None
