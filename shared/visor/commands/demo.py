"""`visor demo`: crawl, embed and serve real pictures on this machine, with nothing to configure."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visor.commands.options import say
from visor.settings import Settings

SHOP_PORT = 8091
"""As in `visor.demo.shop`, which is imported later. A part of the pictures' addresses: another one embeds them anew."""

if TYPE_CHECKING:
    from visor.assembly import Assembly
    from visor.demo.catalogue import Notice


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

    # Also when started in the background, where shells make processes deaf to control-C.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
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
    _serve(assembly, {"title": folder.name}, port, once, started, None)


def _shop(settings: Settings, port: int, shop_port: int, once: bool, started: float) -> None:
    from visor.assembly import Assembly
    from visor.commands.index import crawl_and_embed
    from visor.demo.pictures import ensure_demo_pictures
    from visor.demo.shop import DemoShop, demo_source

    catalogue = ensure_demo_pictures(settings.home, say)
    with DemoShop(catalogue, shop_port) as shop:
        settings = msgspec.structs.replace(settings, index="demo", allow_hosts=(*settings.allow_hosts, shop.host))
        assembly = Assembly(settings)
        crawl_and_embed(assembly, assembly.open_source("demo-shop", demo_source(shop.url)))
        _serve(assembly, page_config(catalogue.notice), port, once, started, catalogue.picture(catalogue.products[0]))


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


def _serve(
    assembly: Assembly, config: dict[str, Any], port: int, once: bool, started: float, example: Path | None
) -> None:
    """Say where the page is and how to search from the terminal, and serve until control-C."""
    from visor.web.site import Server

    assembly.searcher.refresh()
    ready = f"{len(assembly.searcher)} pictures, {time.monotonic() - started:.0f} s"
    index = assembly.settings.index
    command = f"VISOR_INDEX={shlex.quote(index)} {sys.argv[0]} search {shlex.quote(str(example or 'PICTURE'))}"
    if once:
        click.echo(f"Indexed: {ready}")
        click.echo(f"Search from the terminal: {command}")
        return
    server = Server(assembly.site(config), port=port).start()
    click.echo(f"Visor is at {server.address}  ({ready}; control-C ends it)")
    click.echo(f"Search from the terminal: {command}")
    try:
        server.wait()
    except KeyboardInterrupt:
        say("Ending")
    finally:
        server.stop()
