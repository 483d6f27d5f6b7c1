"""`visor serve` and `visor demo`: the page and the HTTP API on this machine, of your index or of a demo shop's."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import msgspec

from visor.console import GivenPath, say
from visor.demo import SHOP_PORT
from visor.errors import BadRequest
from visor.schema.words import counted
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.app import App
    from visor.demo.catalogue import Notice
    from visor.web.site import Server, Site

    _Source = tuple[str, dict[str, Any]]
    """Name and configuration."""
    _Served = tuple[str, App, dict[str, str]]
    """The page's URL, what serves it, and the environment variables with which it can be searched."""


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 picks any free port.")
@click.option("--crawl", is_flag=True, help="Crawl the sources of visor.toml, too, when they are due.")
@click.option("--log", type=GivenPath(dir_okay=False), help="Log to this file; five files of 10 MB are kept.")
def serve_command(host: str, port: int, crawl: bool, log: Path | None) -> None:
    """Serve the page and the HTTP API, until control-C or SIGTERM."""
    from visor.app import App
    from visor.storage import INDEXES, existing
    from visor.storage.local.liveness import only_one
    from visor.web.site import Server, metrics_site

    settings = Settings.read()
    if crawl and settings.backend != "local":
        raise click.UsageError("--crawl is for an index on this machine; on Google Cloud the functions do it")
    if log is not None or crawl:
        _log_to(log)
    settings = msgspec.structs.replace(settings if crawl else existing(settings), hosts=(*settings.hosts, host))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        app = stack.enter_context(App(settings))
        site = app.site({"title": "Visor"})
        if crawl:
            lock = settings.home / INDEXES / settings.index / "serve.lock"
            stack.enter_context(only_one(lock, f"visor serve --crawl of index '{settings.index}'"))
        server = Server(site, host=host, port=port, within_s=settings.request_timeout_s).start()
        stack.callback(server.stop)
        if crawl:
            if not app.configuration.entries:
                file = app.configuration
                say(f"{file.path} has no sources yet{file.absent}; it is read again every minute (docs/sources.md)")
            app.check_model()
            scheduler = app.scheduler()
            scheduler.start()
            stack.callback(scheduler.stop)
        if settings.metrics_port:
            private = Server(metrics_site(site.api), host=settings.metrics_host, port=settings.metrics_port, threads=2)
            stack.callback(private.start().stop)
            say(f"Its metrics are at {private.address}/metrics, open to anyone who can reach that port")
        say(f"Visor is at {server.address} (control-C stops it)")
        say(f"The owner's link, which allows pushing and deleting items: {owner_link(server, site)}")
        try:
            server.wait()
        except KeyboardInterrupt:
            say("Stopping")


def _log_to(path: Path | None) -> None:
    """Log what happens, to standard error or to a file that is rotated."""
    handler = logging.StreamHandler() if path is None else RotatingFileHandler(path, maxBytes=10_000_000, backupCount=4)
    logging.basicConfig(
        handlers=[handler], level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for chatty in ("httpx", "httpcore", "PIL", "waitress.queue"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@click.command("backup")
@click.argument("file", type=GivenPath(dir_okay=False))
def backup_command(file: Path) -> None:
    """Copy the index into FILE, in one consistent state, while it is in use."""
    from visor.storage import existing
    from visor.storage.local.backup import back_up

    settings = existing(_on_this_machine("backup"))
    if settings.engine != "segments":
        raise click.UsageError(
            f"The vectors of this index are in {settings.engine}, which `visor backup` does not copy: use its tools "
            "and copy the index's folder, or run `visor engine migrate segments` first"
        )
    size = back_up(settings.home, settings.index, file)
    say(f"{file}: {size / 1e6:,.1f} MB. It does not contain the model, visor.toml or pictures of folders")


@click.command("restore")
@click.argument("file", type=GivenPath(dir_okay=False))
def restore_command(file: Path) -> None:
    """Make an index from FILE, which `visor backup` wrote, under the name in VISOR_INDEX."""
    from visor.storage.local.backup import restore

    settings = _on_this_machine("restore")
    restore(settings.home, settings.index, file)
    say(f"Index '{settings.index}' is restored; `visor check` reads all of it")


def _on_this_machine(command: str) -> Settings:
    settings = Settings.read()
    if settings.backend != "local":
        raise click.UsageError(
            f"`visor {command}` is for an index on this machine; Firestore and Cloud Storage have their own backups"
        )
    return settings


@click.command("demo")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Where the page is served."
)
@click.option(
    "--shop-port",
    default=SHOP_PORT,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Where the demo shop listens.",
)
@click.option("--source", type=GivenPath(), help="A folder of your own images instead of the shop.")
@click.option(
    "--backend",
    type=click.Choice(["local", "gcp-emulators"]),
    default="local",
    show_default=True,
    help="Where it runs.",
)
@click.option("--once", is_flag=True, help="Index, print how to search, and exit instead of serving.")
def demo_command(port: int, shop_port: int, source: Path | None, backend: str, once: bool) -> None:
    """Crawl, embed and serve images on this machine. Control-C stops everything that it started."""
    from visor.app import App
    from visor.models.build.builder import ensure_model
    from visor.search.request import given_path

    # Shells make background processes ignore control-C.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    folder = None if source is None else given_path(source).resolve()
    if folder is not None and not folder.is_dir():
        raise BadRequest(f"{folder} is not a folder", valid="A folder of images", remedy="Correct --source")
    started = time.monotonic()
    settings = Settings.read()
    ensure_model(settings, say=say)
    with ExitStack() as stack:
        example = "PICTURE"
        if folder is None:
            from visor.demo.pictures import ensure_demo_pictures
            from visor.demo.shop import DemoShop, demo_source

            catalogue = ensure_demo_pictures(settings.home, say)
            shop = stack.enter_context(DemoShop(catalogue, shop_port))
            settings = msgspec.structs.replace(settings, index="demo", allow_hosts=(*settings.allow_hosts, shop.host))
            named, config = ("demo-shop", demo_source(shop.url)), page_config(catalogue.notice)
            example = str(catalogue.picture(catalogue.products[0]))
        else:
            settings = msgspec.structs.replace(settings, index=f"own-{folder.name}", allow_folders=(str(folder),))
            with App(settings) as app:
                # Another folder of that name has its own index.
                settings = msgspec.structs.replace(settings, index=f"own-{app.open_folder(folder).name}")
            named, config = (folder.name, {"kind": "folder", "path": str(folder)}), {"title": folder.name}
        if backend == "local":
            url, app, variables = stack.enter_context(_local(settings, named, config, None if once else port))
        else:
            url, app, variables = stack.enter_context(_emulated(settings, named, config))
        app.searcher.refresh()
        took = f"{counted(len(app.searcher), 'image')}, {time.monotonic() - started:.0f} s"
        click.echo(f"Indexed: {took}" if once else f"Visor is at {url}  ({took}; control-C stops it)")
        environ = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        click.echo(f"Search from the terminal: {environ} {_called()} search {shlex.quote(example)}")
        try:
            while not once:
                time.sleep(1)
        except KeyboardInterrupt:
            say("Stopping")


def _called() -> str:
    """How this program was called, for a shell."""
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m visor"
    return shlex.quote(sys.argv[0])


@contextmanager
def _local(settings: Settings, source: _Source, config: dict[str, Any], port: int | None) -> Iterator[_Served]:
    """Index on this machine, and serve the page unless `port` is None."""
    from visor.app import App
    from visor.cli.index import crawl_and_embed
    from visor.web.site import Server

    with App(settings) as app, ExitStack() as stack:
        app.remember(*source)
        crawl_and_embed(app, app.open_source(*source))
        url = ""
        if port is not None:
            site = app.site(config)
            server = Server(site, port=port, within_s=settings.request_timeout_s).start()
            stack.callback(server.stop)
            url = server.address
            say(f"The owner's link: {owner_link(server, site)}")
        hosts = {"VISOR_ALLOW_HOSTS": ",".join(settings.allow_hosts)} if settings.allow_hosts else {}
        yield url, app, {"VISOR_INDEX": settings.index, **hosts}


def owner_link(server: Server, site: Site) -> str:
    """The page's URL with the owner's key, in the fragment, which browsers do not send."""
    return f"{server.address}/?owner#key={quote(site.api.settings.owner_key, safe='')}"


@contextmanager
def _emulated(settings: Settings, source: _Source, config: dict[str, Any]) -> Iterator[_Served]:
    """Index and serve on Google's emulators. The page is on the port of the bucket's emulator."""
    try:
        from visor_emulators.demo import emulated_demo, environ_of
    except ModuleNotFoundError as exc:
        raise click.UsageError(
            f"--backend gcp-emulators needs {exc.name}: in a checkout of Visor, pip install '.[gcp]' ./devtools"
        ) from exc

    with emulated_demo(settings, config, source) as (page, _, app):
        emulators = {name: os.environ[name] for name in sorted(os.environ) if "_EMULATOR_" in name}
        yield page, app, environ_of(app.settings) | emulators


def page_config(notice: Notice) -> dict[str, Any]:
    """What the page says about the demo's pictures."""
    return {
        "title": "Visor demo",
        "notes": [
            notice.text,
            {"text": notice.link_text, "href": notice.url},
            {"text": notice.licence, "href": notice.licence_url},
        ],
    }
