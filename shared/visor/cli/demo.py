"""`visor demo`: crawl, embed and serve real pictures on this machine, with nothing to configure."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visor.console import say
from visor.settings import Settings

SHOP_PORT = 8091
"""As in `visor.demo.shop`, which is imported later. A part of the pictures' addresses: another one embeds them anew."""

if TYPE_CHECKING:
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
    from visor.models.build.builder import ensure_model

    # Also when started in the background, where shells make processes deaf to control-C.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    started = time.monotonic()
    settings = Settings.read()
    ensure_model(settings, say=say)
    with ExitStack() as stack:
        catalogue = None
        if source is None:
            from visor.demo.pictures import ensure_demo_pictures
            from visor.demo.shop import DemoShop, demo_source

            catalogue = ensure_demo_pictures(settings.home, say)
            shop = stack.enter_context(DemoShop(catalogue, shop_port))
            settings = msgspec.structs.replace(settings, index="demo", allow_hosts=(*settings.allow_hosts, shop.host))
            named, config = ("demo-shop", demo_source(shop.url)), page_config(catalogue.notice)
        else:
            folder = source.expanduser().resolve()
            settings = msgspec.structs.replace(settings, index=f"own-{folder.name}", allow_folders=(str(folder),))
            named, config = (folder.name, {"kind": "folder", "path": str(folder)}), {"title": folder.name}
        example = catalogue.picture(catalogue.products[0]) if catalogue else None
        serve = _serve if backend == "local" else _serve_emulated
        serve(settings, named, config, port=port, once=once, started=started, example=example)


def _serve(
    settings: Settings,
    source: tuple[str, dict[str, Any]],
    config: dict[str, Any],
    *,
    port: int,
    once: bool,
    started: float,
    example: Path | None,
) -> None:
    """Index, say where the page is and how to search from the terminal, and serve until control-C."""
    from visor.app import Assembly
    from visor.cli.index import crawl_and_embed
    from visor.web.site import Server

    with Assembly(settings) as assembly:
        crawl_and_embed(assembly, assembly.open_source(*source))
        assembly.searcher.refresh()
        server = None if once else Server(assembly.site(config), port=port).start()
        _announce(server.address if server else None, len(assembly.searcher), started)
        click.echo(f"Search from the terminal: VISOR_INDEX={shlex.quote(settings.index)} {_search(example)}")
        if server is not None:
            try:
                server.wait()
            except KeyboardInterrupt:
                say("Ending")
            finally:
                server.stop()


def _serve_emulated(
    settings: Settings,
    source: tuple[str, dict[str, Any]],
    config: dict[str, Any],
    *,
    port: int,
    once: bool,
    started: float,
    example: Path | None,
) -> None:
    """The same on Google's emulators. The page has the bucket's port; `port` is not used."""
    try:
        from visor_emulators.demo import emulated_demo, environ_of
    except ModuleNotFoundError as exc:
        raise click.UsageError(
            f"--backend gcp-emulators needs {exc.name}: in a checkout of Visor, pip install '.[gcp]' ./devtools"
        ) from exc

    with emulated_demo(settings, config, source) as (page, _, assembly):
        assembly.searcher.refresh()
        variables = {
            **environ_of(assembly.settings),
            **{n: os.environ[n] for n in sorted(os.environ) if "_EMULATOR_" in n},
        }
        prefix = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        _announce(page, len(assembly.searcher), started)
        click.echo(f"Search from the terminal: {prefix} {_search(example)}")
        try:
            while not once:
                time.sleep(1)
        except KeyboardInterrupt:
            say("Ending")


def _announce(address: str | None, images: int, started: float) -> None:
    took = f"{images} pictures, {time.monotonic() - started:.0f} s"
    click.echo(f"Visor is at {address}  ({took}; control-C ends it)" if address else f"Indexed: {took}")


def _search(example: Path | None) -> str:
    return f"{sys.argv[0]} search {shlex.quote(str(example or 'PICTURE'))}"


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
