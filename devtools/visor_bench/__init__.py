"""`visor bench`: one sub-command per question, each in its own module under `visor_bench`."""

from __future__ import annotations

import importlib

import click

BENCHES = {
    "abuse": "What strangers can do to the search function: memory, answers and meters under the worst requests.",
    "bulk": "Pictures a second of `visor bulk` and of one embed process, and whether both answer alike.",
    "cold-start": "From the start of a search process to its first answer, and where the time goes.",
    "confidence": "Whether answers know what the catalogue holds: ROC area and calibration on labelled folders.",
    "seen": "How far an answer to what a device saw is from the answer to its picture.",
    "copies": "Whether edited copies are found first and distinguished from similar pictures, edit by edit.",
    "device": "What a browser sees itself, compared with what the server sees in the same files.",
    "engines": "Whether Milvus or pgvector answers as Visor's segments do, and how fast.",
    "export": "The size of an export, and how fast a browser searches it at 20 Mbit/s.",
    "embed": "What embedding costs: from a JPEG to vector, labels and safety, compared with the float32 files.",
    "life": "Searches for photos from life among the demo's drawings: what is found, hidden and claimed.",
    "metrics": "P@1, P@12, mAP and time of every metric on a labelled folder.",
    "models": "What models find and cost, side by side: the built-in ones and those of visor.toml.",
    "operations": "The free-tier operations that each step uses.",
    "packshots": "Searches for phone photos among a shop's packshots: what is found, hidden and claimed.",
    "peers": "Visor and its alternatives on the same vectors.",
    "soak": "An hour of `visor serve` under mixed load, during crawls, merges and a reindex: errors and memory.",
    "search": "Latency, recall, memory and size of one index.",
    "serve": "Searches a second of a server, and how long each takes, with more and more clients.",
    "worded": "How sure answers to words are, alone and with photos, and how often they are right.",
    "words": "Latency, memory and size of searching by words, compared with SQLite's FTS5.",
}
"""Name of each sub-command and its line of help; `visor_bench.NAME` holds `NAME_command`, dashes as underscores."""


class LazyBenches(click.Group):
    """Imports a benchmark when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BENCHES:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"visor_bench.{name}"), f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Benchmarks"):
            formatter.write_dl(sorted(BENCHES.items()))


@click.group("bench", cls=LazyBenches)
def bench_command() -> None:
    """Time the index, the start and the pipeline against the alternatives."""
