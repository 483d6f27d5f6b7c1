"""`visor bench`: one sub-command per question, each in its own module."""

from __future__ import annotations

import importlib

import click

BENCHES = {
    "answers": {
        "confidence": "Whether answers know what the catalogue holds: ROC area and calibration on labelled folders.",
        "copies": "Whether edited copies are found first and distinguished from similar pictures, edit by edit.",
        "device": "What a browser sees itself, compared with what the server sees in the same files.",
        "life": "Searches for photos from life among the demo's drawings: what is found, hidden and claimed.",
        "metrics": "P@1, P@12, mAP and time of every metric on a labelled folder.",
        "models": "What models find and cost, side by side: the built-in ones and those of visor.toml.",
        "packshots": "Searches for phone photos among a shop's packshots: what is found, hidden and claimed.",
        "seen": "How far an answer to what a device saw is from the answer to its picture.",
        "worded": "How sure answers to words are, alone and with photos, and how often they are right.",
    },
    "speed": {
        "cold-start": "From the start of a search process to its first answer, and where the time goes.",
        "embed": "What embedding costs: from a JPEG to vector, labels and safety, compared with the float32 files.",
        "engines": "Whether Milvus or pgvector answers as Visor's segments do, and how fast.",
        "export": "The size of an export, and how fast a browser searches it at 20 Mbit/s.",
        "peers": "Visor and its alternatives on the same vectors.",
        "search": "Latency, recall, memory and size of one index.",
        "words": "Latency, memory and size of searching by words, compared with SQLite's FTS5.",
    },
    "load": {
        "abuse": "What strangers can do to the search function: memory, answers and meters under the worst requests.",
        "bulk": "Pictures a second of `visor bulk` and of one embed process, and whether both answer alike.",
        "operations": "The free-tier operations that each step uses.",
        "serve": "Searches a second of a server, and how long each takes, with more and more clients.",
        "soak": "An hour of `visor serve` under mixed load, during crawls, merges and a reindex: errors and memory.",
    },
}
"""By folder, each sub-command and its line of help; `visor_bench.FOLDER.NAME` holds `NAME_command`, dashes as
underscores."""


class LazyBenches(click.Group):
    """Imports a benchmark when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for benches in BENCHES.values() for name in benches)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        folder = next((folder for folder, benches in BENCHES.items() if cmd_name in benches), None)
        if folder is None:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"visor_bench.{folder}.{name}"), f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for folder, benches in BENCHES.items():
            with formatter.section(folder.capitalize()):
                formatter.write_dl(sorted(benches.items()))


@click.group("bench", cls=LazyBenches)
def bench_command() -> None:
    """Time the index, the start and the pipeline against the alternatives."""
