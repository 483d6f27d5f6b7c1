"""Visor: reverse image search that runs on a laptop, or on Google Cloud for $0 a month.

The names in `__all__` are the public interface (docs/python.md); `__init__.pyi` gives their types. Each is imported
when it is first used, so that `import visor` is fast and `visor.connect` needs neither a model nor an index library.
"""

import importlib as _importlib

__version__ = "0.1.0"

_NAMES = {
    "visor.errors": "BadRequest Conflict CorruptObject DeployError DropItem EmbedCrashed FetchFailed FetchRefused "
    "FetchUnavailable Forbidden FormatError HostDead HostPaused ImageError KeyRequired ModelError ModelNotBuilt "
    "NewerFormat NotConfigured NotFound NothingToCompare OtherModel QuotaReached RequestError "
    "RequestTooLarge RequestTooSlow SettingsError SourceError SourceUnavailable StoreError StoreUnavailable "
    "UndecodableImage UndecodableNow UnknownHandle UnknownItem UnsafeImage UnsupportedMediaType VisorError "
    "WeightsUnavailable",
    "visor.library.index": "Index SearchResult",
    "visor.library.local": "open",
    "visor.library.remote": "connect",
    "visor.schema.items": "Item item_id",
    "visor.schema.push": "PushItem",
    "visor.schema.search": "CompareAnswer Condition Example Filters Match PriceRange",
    "visor.settings": "Settings",
    "visor.sources.contract": "Page Source SourceConfig SourceContext",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'visor' has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
