"""Sources: catalogues that Visor reads, and the names that a plug-in for a new kind needs. docs/sources.md shows one.

Every name below is stable. The errors are in `visor.errors`, the test of the contract is in `visor.testing`.
"""

from visor.errors import DropItem, NotConfigured
from visor.http.retry import RetryPolicy
from visor.schema.items import Item, item_id
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, Place, RowErrors, RowFailure, Source, SourceConfig, SourceContext, page_of
from visor.sources.parse.item import make_item, resolve_url
from visor.sources.parse.text import country_code, iso_date, plain_text
from visor.sources.registry import open_source

__all__ = [
    "DropItem",
    "Item",
    "NotConfigured",
    "Page",
    "Place",
    "RetryPolicy",
    "RetryingClient",
    "RowErrors",
    "RowFailure",
    "Source",
    "SourceConfig",
    "SourceContext",
    "country_code",
    "iso_date",
    "item_id",
    "make_item",
    "open_source",
    "page_of",
    "plain_text",
    "resolve_url",
]
