"""`visor demo`: crawl, embed and serve real pictures on this machine, with nothing to configure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visor.commands.options import say
from visor.settings import Settings

if TYPE_CHECKING:
    from visor.assembly import Assembly

SHOP_PORT = 8091


@click.command("demo")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Where the page is served."
)
@click.option("--shop-port", default=SHOP_PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option("--source", type=click.Path(path_type=Path), help="A folder of your own pictures instead of the shop's.")
@click.option("--backend", type=click.Choice(["local", "gcp-emulators"]), default="local", show_default=True)
@click.option("--once", is_flag=True, help="Index, say how to search, and end instead of serving.")
def demo_command(port: int, shop_port: int, source: Path | None, backend: str, once: bool) -> None:
    """Crawl, embed and serve pictures on this machine. Control-C ends everything that it started."""
    from visor.models.build import ensure_model

    started = time.monotonic()
    settings = Settings.read()
    ensure_model(settings, say=say)
    if backend == "gcp-emulators":
        from visor.demo.emulated import run_emulated

        run_emulated(settings, port=port, shop_port=shop_port, source=source, once=once, started=started)
        return
    if source is not None:
        _own_folder(settings, source.expanduser().resolve(), port, once, started)
    else:
        _shop(settings, port, shop_port, once, started)


def _own_folder(settings: Settings, folder: Path, port: int, once: bool, started: float) -> None:
    from visor.assembly import Assembly
    from visor.commands.index import crawl_and_embed

    settings = msgspec.structs.replace(settings, index=f"own-{folder.name}", allow_folders=(str(folder),))
    assembly = Assembly(settings)
    crawl_and_embed(assembly, assembly.open_source(folder.name, {"kind": "folder", "path": str(folder)}))
    _serve(assembly, {"title": folder.name}, settings, port, once, started)


def _shop(settings: Settings, port: int, shop_port: int, once: bool, started: float) -> None:
    from visor.assembly import Assembly
    from visor.commands.index import crawl_and_embed
    from visor.demo.pictures import ensure_demo_pictures
    from visor.demo.shop import DemoShop, shop_config

    catalogue = ensure_demo_pictures(settings.home, say)
    with DemoShop(catalogue, port=shop_port) as shop:
        settings = msgspec.structs.replace(settings, index="demo", allow_hosts=(*settings.allow_hosts, shop.host))
        assembly = Assembly(settings)
        crawl_and_embed(assembly, assembly.open_source("demo-shop", shop_config(shop.address)))
        _serve(assembly, catalogue.page_config(), settings, port, once, started)


def _serve(
    assembly: Assembly, config: dict[str, Any], settings: Settings, port: int, once: bool, started: float
) -> None:
    from visor.web.site import Server

    server = Server(assembly.site(config), port=port)
    ready = f"{len(assembly.searcher)} pictures, {time.monotonic() - started:.0f} s"
    picture = settings.home / "demo" / "query.jpg"
    command = f"VISOR_INDEX={settings.index} .venv/bin/visor search {picture if picture.exists() else 'PICTURE'}"
    if not once:
        server.start()
        click.echo(f"Visor is at {server.address}  ({ready}; control-C ends it)")
    click.echo(f"Search from the terminal: {command}")
    try:
        if not once:
            server.wait()
    except KeyboardInterrupt:
        say("Ending")
    finally:
        server.stop()
