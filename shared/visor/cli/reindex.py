"""`visor reindex`: embed everything anew with the model of VISOR_MODEL, while searches go on."""

from __future__ import annotations

import click

from visor.console import as_json, print_json, say
from visor.settings import Settings


@click.command("reindex")
@as_json
def reindex_command(as_json: bool) -> None:
    """Embed all items anew with the model of VISOR_MODEL; searches go on with the old index until that is done.

    Run it after the functions are deployed with the new model. It may be stopped and run again at any time. On Google
    Cloud it publishes and ends: embed works, and the next compact after the last item switches. Here it does all.
    """
    from visor.app import Assembly
    from visor.ingest.worker import Worker

    with Assembly(Settings.read()) as assembly:
        report = assembly.reindex(lambda published: say(f"{published} items published"))
        if assembly.settings.backend == "local" and not report.switched:
            Worker(assembly.stores.queue, assembly.batch_embedder).drain()
            assembly.merge()
            report = assembly.reindex()
    if as_json:
        print_json(report)
    elif report.switched:
        say(f"The index of model {report.current} is searched")
    else:
        say(f"{report.published} items are published; compact switches to {report.building} once all are embedded")
