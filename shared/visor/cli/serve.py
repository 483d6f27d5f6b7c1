"""`visor serve`: the page and the search endpoint on this machine."""

from __future__ import annotations

import click

from visor.console import say
from visor.settings import Settings


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
def serve_command(host: str, port: int) -> None:
    """Answer searches and show the page, until control-C."""
    from visor.app import Assembly
    from visor.web.site import Server

    server = Server(Assembly(Settings.read()).site({"title": "Visor"}), host=host, port=port).start()
    say(f"Visor is at {server.address} (control-C ends it)")
    try:
        server.wait()
    except KeyboardInterrupt:
        say("Ending")
    finally:
        server.stop()
