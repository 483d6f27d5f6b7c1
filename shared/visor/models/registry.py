"""Which models there are: those of installed packages, including Visor's own, and those of the owner's visor.toml.

A package adds a model with an entry point of the group `visor.models` whose name is the model's and whose object is a
`ModelDescription`. Visor's own (`visor.models.builtin`) are registered in the same way. `visor.models.owner` reads
visor.toml.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint

from visor.errors import SettingsError
from visor.models.description import ModelDescription, Package
from visor.models.owner import owner_models
from visor.plugins import load as load_plugin
from visor.plugins import plugins
from visor.settings import Settings

GROUP = "visor.models"
AUTO = "auto"
DEFAULT = "nsfwjs+efficientnet_lite0"
"""What `auto` means: the model whose figures docs/benchmarks.md shows, and with which confidence was learned."""

BUILT = {
    "ff8b3bf14a8924561f0e7805f88d9f07b9b6ba15c5bafaefb490f8c6ea75c10d": Package(
        registry="pypi",
        name="visor-model-nsfwjs-efficientnet-lite0",
        version="3.0",
        checksum="sha256:e032afc17228aa898fced5ee8d56be5c34a045c601533dbd74cdafe61aa8b1f3",
    )
}
"""By fingerprint: packages that hold the built model (`make model-package`), so that nobody needs TensorFlow for it."""


def installed() -> dict[str, EntryPoint]:
    """The models of installed packages, by name, not loaded. Raises as `visor.plugins.plugins`."""
    return plugins(GROUP, "model")


def load(entry: EntryPoint) -> ModelDescription:
    """The model of an entry point.

    Raises:
        SettingsError: It cannot be loaded, or is not a model of that name.
    """
    model = load_plugin(entry, "model")
    package = entry.dist.name if entry.dist else "an unknown package"
    if not isinstance(model, ModelDescription) or model.name != entry.name:
        found = f"one named {model.name!r}" if isinstance(model, ModelDescription) else f"a {type(model).__name__}"
        raise SettingsError(
            f"The entry point {entry.name!r} of {package} gives {found}",
            valid="A visor.models.registry.ModelDescription with the name of its entry point",
            remedy=f"Tell the author of {package}",
        )
    return model


def names(settings: Settings) -> list[str]:
    """Names of all models that are installed or in the owner's visor.toml."""
    entries = installed()
    return [*entries, *owner_models(settings.config, entries)]


def describe(name: str, settings: Settings | None = None) -> ModelDescription:
    """The model of that name, installed or from the owner's visor.toml; `auto` is `DEFAULT`.

    Raises:
        SettingsError: There is none, or it is described wrongly.
    """
    entries = installed()
    wanted = DEFAULT if name == AUTO else name
    if wanted in entries:
        return load(entries[wanted])
    own = owner_models(settings.config, entries) if settings is not None else {}
    if wanted in own:
        return own[wanted]()
    where = "" if settings is None else f" here or in {settings.config}"
    raise SettingsError(
        f"There is no model named {name!r}{where}",
        valid=", ".join([AUTO, *entries, *own]),
        remedy="Set VISOR_MODEL to one of these or unset it, or describe it in visor.toml (docs/models.md)",
    )
