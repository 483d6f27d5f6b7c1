"""All settings: read from `VISOR_*` once, in the entry point, and passed on from there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_origin

import msgspec

from visor.config_errors import misfit
from visor.errors import SettingsError

PREFIX = "VISOR_"
POSITIVE = (
    "budget_dollar", "batch_size", "k_max", "threads", "fetch_parallel", "fetch_parallel_per_host",
    "searches_per_minute", "searches_burst", "reads_per_minute", "reads_burst",
)  # fmt: skip
"""Settings for which 0 would stop everything; for others it means none, or no limit."""
SHARES = ("quota_share", "owner_reserve", "audit_rate")
"""Settings that are at most 1: more than the whole allowance is not free."""
Language = Literal[
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian", "norwegian",
    "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
]  # fmt: skip
"""Languages with a stemmer."""
LANGUAGES: tuple[Language, ...] = ("english", "german", "french", "spanish")

INDEX_NAME = re.compile(r"[^/\\\0.][^/\\\0]*")
INDEX_NAMES = "a name without slashes that does not begin with a dot"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is a setting; its environment variable is `VISOR_` and the field's name in capitals."""

    # Where things are kept
    backend: Literal["local", "gcp"] = "local"
    home: Path = Path("~/.visor")
    """On this machine: models, and a folder for each index."""
    models: str = ""
    """Where built models are; empty: the folder `models` in `home`."""
    index: str = "default"
    """Name of the index: a folder under `home`, or the prefix of object names and collections on Google Cloud."""
    config: Path = Path("visor.toml")
    """The owner's sources (docs/sources.md)."""
    project: str = ""
    bucket: str = ""
    topic: str = "visor-batches"
    subscription: str = "visor-batches-embed"
    """Subscription to the topic, of which `visor stats` reports how much waits. Tests pull from one of their own."""
    dead_letter_topic: str = "visor-dead-letters"
    dead_letter_subscription: str = "visor-dead-letters"
    database: str = "(default)"
    store_deadline_s: float = 30.0
    """How long calls to a store on Google Cloud are tried again; a function's time is several times as long."""

    site: str = ""
    """Google Cloud: bucket of the page, to which merges publish the index (docs/formats.md); empty: none."""

    # Vector engine (docs/decisions/engine.md)
    engine: Literal["segments", "milvus", "pgvector"] = "segments"
    """What holds vectors and finds the nearest: Visor's own segments, or a separate server."""
    engine_url: str = ""
    """milvus: a file that ends in .db (Milvus Lite) or a URL; pgvector: postgresql://user@host/database."""
    engine_token: str = ""
    """Token of Milvus or Zilliz Cloud, or password of PostgreSQL. A secret: keep it out of files that others read."""

    # Models
    model: str = "auto"
    threads: int = 2

    # Words
    languages: tuple[Language, ...] = LANGUAGES
    """Languages of the catalogue: in these, an item is also found by other forms of its words."""

    # Safety of pictures: probability of hentai + porn (+ half of sexy) from which a picture is unsafe
    unsafe_query: float = 0.9
    unsafe_item: float = 0.85

    # Fetching pictures and pages
    allow_hosts: tuple[str, ...] = ()
    """`host:port` pairs that may be fetched although they are not public (the demo's own shop)."""
    allow_folders: tuple[str, ...] = ()
    """Folders whose pictures may be read (`file:` URLs, which only the source `folder` makes)."""
    allow_buckets: tuple[str, ...] = ()
    """Buckets whose pictures may be read, such as `gs://pictures/prefix` (private ones, which have no web URL)."""
    user_agent: str = "Visor/0.1 (reverse image search; +https://github.com/visor-search/visor)"
    fetch_bytes_max: int = 20_000_000
    fetch_timeout_s: float = 15.0
    fetch_parallel: int = 16
    fetch_parallel_per_host: int = 4
    fetch_instances: int = 1
    """Instances of this function that fetch at once: each gets its part of `fetch_parallel_per_host`, at least 1."""
    pixels_max: int = 60_000_000

    # Pipeline
    batch_size: int = 64
    crawl_budget_s: float = 1500.0
    compact_budget_s: float = 1200.0
    """Time after which the compact function begins no further step of a merge."""
    host_requests_a_day: int = 50_000
    """Requests to one host a day (UTC) by crawls, embeds and checks of links together; 0: no limit."""
    links_a_day: int = 300
    """Items a day whose picture and page are checked for whether they are still there; 0: none."""
    embed_attempts_max: int = 5
    freshness_s: float = 30.0

    # Search endpoint
    audit_rate: float = 0.05
    """Share of `fast` queries that are also run `exact`, after their answer, to measure the live recall; 0: none."""
    request_bytes_max: int = 20_000_000
    request_timeout_s: float = 20.0
    """How long the body of a request may take to arrive; 20 s on a mobile line are more than a page's picture needs."""
    k_max: int = 200
    device: bool = True
    """Let visitors' own devices run the model: serve its files, and answer what the devices computed (`seen`)."""
    models_from: Literal["function", "bucket", "elsewhere"] = "function"
    """Where the page gets the model's files. On Google Cloud devices run the model by default, except with the
    function, whose data out is the tightest allowance."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the endpoint, besides its own page; `*`: all."""
    metrics_port: int = 0
    """Port on which `visor serve` shows its metrics to everybody, without a key; 0: none."""
    metrics_host: str = "127.0.0.1"
    """Address of this machine on which it listens for that."""
    page_config: str = ""
    """The page's config.json; if it is set, the search function serves the page, too."""
    hosts: tuple[str, ...] = ()
    """Names by which `visor serve` may be called, besides localhost and IP addresses."""
    owner_key: str = ""
    """Key with which the owner may also use the reserve (header `X-Visor-Key`); empty: there is none."""
    key_required: bool = False
    """Answer only requests that carry the owner's key."""
    searches_per_minute: float = 30.0
    """Searches that one client may make per minute over a long time."""
    searches_burst: int = 20
    """Searches that one client may make at once after a pause."""
    reads_per_minute: float = 120.0
    """Requests for items, facets and the like (not searches) that one client may make per minute over a long time."""
    reads_burst: int = 60
    """The same, at once after a pause."""

    # Staying free of charge
    quota_share: float = 0.9
    """Share of each free allowance that Visor may use before it postpones crawls and answers 429."""
    owner_reserve: float = 0.1
    """Share of Visor's quota that is kept for the owner."""
    budget: float = 0.0
    """What Visor may spend per month beyond the free tier, in the billing account's currency; 0: nothing."""
    budget_dollar: float = 1.0
    """Price of a US dollar in that currency, because prices are in US dollars."""
    function_cpu: float = 1.0
    """vCPUs of the function that runs this, for its meter."""
    function_memory_gib: float = 1.0

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings of this process.

        Raises:
            SettingsError: A variable has the wrong type, or a `VISOR_` variable names no setting.
        """
        values: dict[str, object] = {}
        fields = {f.name: f.type for f in msgspec.structs.fields(cls)}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :].lower()
            if name not in fields:
                raise SettingsError(
                    f"Environment variable {variable} names no setting",
                    valid=", ".join(PREFIX + f.upper() for f in fields),
                    remedy="Correct the name or unset it",
                )
            is_list = get_origin(fields[name]) is tuple
            if not text.strip() and not is_list and fields[name] is not str:
                continue
            values[name] = tuple(p.strip() for p in text.split(",") if p.strip()) if is_list else text
        try:
            settings = msgspec.convert(values, cls, strict=False, dec_hook=_path)
        except msgspec.ValidationError as exc:
            found, valid, _ = misfit(exc, cls, values)
            name, _, rest = found.partition(" ")
            variable = PREFIX + name.upper()
            raise SettingsError(f"{variable} {rest}", valid=valid, remedy="Correct it or unset it") from exc
        for name, value in msgspec.structs.asdict(settings).items():
            if not isinstance(value, int | float):
                continue
            if name in SHARES and not 0 <= value <= 1:
                raise _refused(name, "a finite number from 0 to 1", values)
            if not (0 <= value < math.inf and (value or name not in POSITIVE)):
                wanted = "above 0" if name in POSITIVE else "of at least 0"
                raise _refused(name, f"a finite number {wanted}", values)
        if not INDEX_NAME.fullmatch(settings.index):
            raise _refused("index", INDEX_NAMES, values)
        for name in ("home", "models"):
            try:
                Path(getattr(settings, name)).expanduser()
            except RuntimeError as exc:  # `~name` of an unknown user
                raise _refused(name, "a folder; ~ alone is this user's own", values) from exc
        return msgspec.structs.replace(settings, home=settings.home.expanduser())


def _refused(name: str, valid: str, values: Mapping[str, object]) -> SettingsError:
    found = f'{PREFIX}{name.upper()} is "{values.get(name)}"'
    return SettingsError(found, valid=valid, remedy="Correct it or unset it")


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError
