"""Checks an index and its databases, and repairs what can be made again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from visor.check.damage import CheckReport, Damage
from visor.check.index_check import IndexCheck
from visor.errors import CorruptObject
from visor.index.format.current_model import read_current
from visor.ingest.reindex import check_model
from visor.schema.collections import FAILURES, ITEMS
from visor.schema.items import ITEM_ID, is_live
from visor.settings import Settings
from visor.storage import Stores
from visor.storage.engine import VectorEngine


def check_index(
    settings: Settings,
    stores: Stores,
    model: str,
    *,
    repair: bool,
    embed_and_merge: Callable[[], None],
    engine: Callable[[], VectorEngine | None] = lambda: None,
) -> CheckReport:
    """Check an index whose stores nobody has used yet in this process, and repair it. During a reindex this is the new
    index and the one that is searched.

    Args:
        stores: The stores of these settings, opened lazily.
        engine: Returns the engine that has the rows, if segments do not.
        embed_and_merge: Called after a repair; a laptop embeds what was published, too.

    Raises:
        As `IndexCheck.run`.
        SettingsError: The index is to be repaired with a model that is not its own.
    """

    def look(*, repair: bool) -> list[Damage]:
        searched = model
        with suppress(CorruptObject):  # which is named
            if repair:
                check_model(stores.documents, model, settings.model)
            state, _ = read_current(stores.documents)
            searched = state.current if state is not None else model
        checks = [IndexCheck(stores, one, repair, engine()) for one in dict.fromkeys([searched, model])]
        return list(dict.fromkeys(damage for check in checks for damage in check.run()))

    found = _databases(settings, repair=repair)
    if not found or repair:
        found += look(repair=repair)
    if not found or not repair:
        return CheckReport(found=tuple(found), left=tuple(found))
    embed_and_merge()
    left = look(repair=False)
    concerned = list(dict.fromkeys(item for damage in found for item in damage.items if ITEM_ID.match(item)))
    items = stores.documents.get(ITEMS, concerned)
    failures = stores.documents.get(FAILURES, concerned)
    lost = {
        item: str(failures[item].data["reason"]) if item in failures else "its source has to bring it again"
        for item in concerned
        if item not in items or not is_live(items[item].data)
    }
    return CheckReport(found=tuple(found), left=tuple(left), lost=lost)


def _databases(settings: Settings, *, repair: bool) -> list[Damage]:
    """Damage to the SQLite files of a laptop."""
    if settings.backend != "local":
        return []
    from visor.storage.local import documents, queue
    from visor.storage.local.sqlite import damage, salvage

    found = []
    for name, migrations in (("documents.sqlite", documents.MIGRATIONS), ("queue.sqlite", queue.MIGRATIONS)):
        path = settings.home / "indexes" / settings.index / name
        if why := damage(path, migrations):
            remedy = "Make it again from the rows that can be read"
            if repair:
                remedy += f"; the damaged file is kept as {salvage(path, migrations).name}"
            found.append(Damage(kind="database", found=f"{path} is damaged: {why}", remedy=remedy))
    return found
