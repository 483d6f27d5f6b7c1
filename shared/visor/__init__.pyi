"""The public interface, for type checkers. `__init__.py` imports each name when it is first used."""

from visor.errors import BadRequest as BadRequest
from visor.errors import Conflict as Conflict
from visor.errors import CorruptObject as CorruptObject
from visor.errors import DeployError as DeployError
from visor.errors import DropItem as DropItem
from visor.errors import EmbedCrashed as EmbedCrashed
from visor.errors import FetchFailed as FetchFailed
from visor.errors import FetchRefused as FetchRefused
from visor.errors import FetchUnavailable as FetchUnavailable
from visor.errors import Forbidden as Forbidden
from visor.errors import FormatError as FormatError
from visor.errors import HostDead as HostDead
from visor.errors import HostPaused as HostPaused
from visor.errors import ImageError as ImageError
from visor.errors import KeyRequired as KeyRequired
from visor.errors import ModelError as ModelError
from visor.errors import ModelNotBuilt as ModelNotBuilt
from visor.errors import NewerFormat as NewerFormat
from visor.errors import NotConfigured as NotConfigured
from visor.errors import NotFound as NotFound
from visor.errors import NothingToCompare as NothingToCompare
from visor.errors import OtherModel as OtherModel
from visor.errors import QuotaReached as QuotaReached
from visor.errors import RequestError as RequestError
from visor.errors import RequestTooLarge as RequestTooLarge
from visor.errors import RequestTooSlow as RequestTooSlow
from visor.errors import SettingsError as SettingsError
from visor.errors import SourceError as SourceError
from visor.errors import SourceUnavailable as SourceUnavailable
from visor.errors import StoreError as StoreError
from visor.errors import StoreUnavailable as StoreUnavailable
from visor.errors import UndecodableImage as UndecodableImage
from visor.errors import UndecodableNow as UndecodableNow
from visor.errors import UnknownHandle as UnknownHandle
from visor.errors import UnknownItem as UnknownItem
from visor.errors import UnsafeImage as UnsafeImage
from visor.errors import UnsupportedMediaType as UnsupportedMediaType
from visor.errors import VisorError as VisorError
from visor.errors import WeightsUnavailable as WeightsUnavailable
from visor.library.index import Index as Index
from visor.library.index import SearchResult as SearchResult
from visor.library.local import open as open  # noqa: A004
from visor.library.remote import connect as connect
from visor.schema.items import Item as Item
from visor.schema.items import item_id as item_id
from visor.schema.push import PushItem as PushItem
from visor.schema.search import CompareAnswer as CompareAnswer
from visor.schema.search import Condition as Condition
from visor.schema.search import Example as Example
from visor.schema.search import Filters as Filters
from visor.schema.search import Match as Match
from visor.schema.search import PriceRange as PriceRange
from visor.settings import Settings as Settings
from visor.sources.contract import Page as Page
from visor.sources.contract import Source as Source
from visor.sources.contract import SourceConfig as SourceConfig
from visor.sources.contract import SourceContext as SourceContext

__version__: str
__all__: list[str]
