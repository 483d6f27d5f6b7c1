"""The pipelines: waiting batches → one worker at a time for each lane of a host → download, decode, embed, commit;
and waiting pieces of a merge → a worker for each → segments.

A worker does with a batch what embed does with a delivery: the same plan, shard, names and one atomic commit. So a
bundle that is run again, here or by another worker, skips work that is done.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import beam_provision_api_pb2 as provision_api
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from visor.app import App
from visor.bulk.lanes import DIRECT, PacedReader, Politeness, lanes_of
from visor.bulk.waiting import WaitingBatches, joined
from visor.errors import Conflict, CorruptObject, NotFound, SettingsError, StoreUnavailable
from visor.http.throttle import PAUSE_MAX_S
from visor.index.merge.pieces import build_waiting
from visor.ingest.batch_plan import EmbedReport
from visor.ingest.embed import BatchIncomplete
from visor.ingest.worker import BACK_OFF_MAX_S, BACK_OFF_S, counts_as_try
from visor.settings import Settings
from visor.storage import LazyStores
from visor.storage.queue import Message

METRICS = "visor"
STORE_TRIES = 5
"""Tries of a worker with a store that does not answer, before its bundle fails."""

Answer = TypeVar("Answer")
Lane = tuple[str, Iterable[str]]
"""A lane's name, and the names of its batches."""


class EmbedBatches(ModelHandler):  # type: ignore[misc]  # Beam's classes are untyped here
    """RunInference's handler. The model is an app with its network: one per process, used by all its threads.

    Args:
        attempt: As in `BatchEmbedder.embed`: how often the batches were tried without any of them being done.
    """

    def __init__(self, settings: Settings, politeness: Politeness, attempt: int) -> None:
        super().__init__()
        self.settings = settings
        self._politeness, self._attempt = politeness, attempt

    def load_model(self) -> App:
        settings = self.settings
        if settings.backend != "local":
            here = Settings.read()  # a worker's image sets the place of the model
            settings = msgspec.structs.replace(settings, home=here.home, models=here.models)
        app = App(settings)
        app.check_model(everywhere=True)  # the one of this worker's image
        app.read_image = PacedReader(app.read_image, self._politeness)
        return app

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"max_batch_size": 1}

    def run_inference(
        self, batch: Sequence[Lane], model: App, inference_args: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, int]]:
        """Embed and commit the batches of lanes, one after the other. Yields the result of each batch, in items."""
        waiting = WaitingBatches(model.stores)

        def read(name: str) -> Message | None:
            with suppress(NotFound):  # done before this bundle was run again
                return _patiently(partial(waiting.message, name))
            return None

        for _, names in batch:
            for messages in waiting.gathered(names, self.settings.batch_size, read):
                body = joined(messages)
                try:
                    counts = vars(self._deliver(model, body))
                except CorruptObject as exc:
                    waiting.bury(body, attempts=1, why=str(exc))
                    counts = vars(EmbedReport())
                for message in messages:
                    _patiently(partial(waiting.acknowledge, message))
                for what, count in counts.items():
                    Metrics.counter(METRICS, what).inc(count)
                yield counts
        model.meter.flush()

    def _deliver(self, model: App, body: bytes) -> EmbedReport:
        """The result of a batch. Raises CorruptObject if it is not a batch."""
        report, attempt = EmbedReport(), self._attempt
        while True:
            try:
                report.add(_patiently(partial(model.batch_embedder.embed, body, attempt=attempt)))
            except BatchIncomplete as exc:
                report.add(exc.done)
                attempt += exc.counts
                time.sleep(min(exc.retry_after_s or BACK_OFF_S * 2 ** (attempt - 1), BACK_OFF_MAX_S, PAUSE_MAX_S))
            except CorruptObject:
                raise
            except Exception as exc:
                # The next try of a batch with an unforeseen fault finds out, item by item, which item has it.
                if not counts_as_try(exc) or attempt >= model.settings.embed_attempts_max:
                    raise
                attempt += 1
            else:
                return report


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """The result of a call to a store, or its last error."""
    for tries in range(STORE_TRIES - 1):
        try:
            return ask()
        except (StoreUnavailable, Conflict):
            time.sleep(BACK_OFF_S * 2**tries)
    return ask()


def _waiting_lanes(_: None, settings: Settings, lanes: int) -> Iterator[tuple[str, str]]:
    with LazyStores(settings) as stores:
        yield from lanes_of(WaitingBatches(stores).all(), lanes)


def checked_options(runner: str, arguments: Sequence[str], settings: Settings, workers: int) -> list[str]:
    """Beam's options for a run, with those that follow from the settings, checked by Beam's own validator.

    Raises:
        SettingsError: An option is unknown, missing or wrong.
    """
    given: dict[str, Any] = {"runner": runner}
    if runner == DIRECT:
        given |= {"direct_num_workers": workers, "direct_running_mode": "multi_processing"}
        given |= {"default_sdk_harness_log_level": "CRITICAL"}  # an error ends the pass, and is reported then
    elif runner == "DataflowRunner":
        folder = f"gs://{settings.bucket}/{settings.index}/beam"
        given |= {"project": settings.project, "temp_location": folder, "max_num_workers": workers}
        given |= {"number_of_worker_harness_threads": 2, "sdk_location": "container"}
    flags = [f"--{name}={value}" for name, value in given.items() if not _names(arguments, name)]
    try:
        flags += arguments
        options = PipelineOptions(flags)
        known = options.get_all_options().keys()
        unknown = sorted(options.get_all_options(retain_unknown_options=True).keys() - known)
        wrong = [f"--{name} is not an option of Beam" for name in unknown]
        wrong += PipelineOptionsValidator(options, create_runner(runner)).validate()
    except (SystemExit, ValueError, ImportError) as exc:
        wrong = [str(exc)]
    if runner == "DataflowRunner" and settings.backend == "local":
        wrong.append("VISOR_BACKEND is 'local', whose files no worker elsewhere can read: set VISOR_BACKEND=gcp")
    if wrong:
        raise SettingsError(
            f"{runner} cannot be started with these options: " + "; ".join(wrong),
            valid="Options of Apache Beam and of its runner, as docs/bulk.md shows them",
            remedy="Correct the options",
        )
    return flags


def _names(arguments: Sequence[str], option: str) -> bool:
    return any(one == f"--{option}" or one.startswith(f"--{option}=") for one in arguments)


def run_pass(flags: Sequence[str], what: str, settings: Settings, *arguments: Any) -> dict[str, int] | None:
    """Run a pipeline over all that waits, to its end. Returns the counts of items done; None in Dataflow's launcher,
    which starts the job once this process has ended.

    On DirectRunner this runs in its own process, which ends with the first worker that is killed: Beam would wait for
    such a worker for ever.

    Args:
        what: One of `STAGES`, which take the other arguments.
    """
    options = PipelineOptions(flags)
    runner, here = None, options.get_all_options()["runner"] == DIRECT
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL if here else logging.ERROR)
    if here:
        # Beam's choice of a runner may download one; this runner has worker processes.
        encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        provision = provision_api.ProvisionInfo(pipeline_options=encoded)
        runner = FnApiRunner(provision_info=ExtendedProvisionInfo(provision))
        threading.excepthook = _end_with_worker
    pipeline = beam.Pipeline(runner=runner, options=options)
    # The owner's key would appear in the description of the job, and nothing here needs it.
    STAGES[what](pipeline, msgspec.structs.replace(settings, owner_key=""), *arguments)
    result = pipeline.run()
    if options.view_as(GoogleCloudOptions).template_location:
        return None
    result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS))["counters"]
    return {one.key.metric.name: int(one.result) for one in counters}


def _embed_stages(pipeline: Any, settings: Settings, politeness: Politeness, attempt: int) -> None:
    """A worker lists the waiting batches; each lane goes to one worker at a time."""
    _ = (
        pipeline
        | "Start" >> beam.Create([None])
        | "List" >> beam.FlatMap(_waiting_lanes, settings, politeness.lanes)
        | "Lanes" >> beam.GroupByKey()
        | "Embed" >> RunInference(EmbedBatches(settings, politeness, attempt))
    )


def _merge_stages(pipeline: Any, settings: Settings, names: Sequence[str]) -> None:
    """Each piece of a merge goes to one worker."""
    _ = (
        pipeline
        | "Start" >> beam.Create([(name, None) for name in names])
        | "Pieces" >> beam.GroupByKey()
        | "Build" >> beam.Map(_build, settings)
    )


def _build(piece: tuple[str, Any], settings: Settings) -> None:
    """Build one piece. A piece that cannot be built goes on waiting: the merge reports why."""
    with LazyStores(settings) as stores, suppress(CorruptObject, NotFound):
        build_waiting(stores.objects, stores.documents, piece[0])


STAGES: dict[str, Callable[..., None]] = {"embed": _embed_stages, "merge": _merge_stages}


def _end_with_worker(args: threading.ExceptHookArgs) -> None:
    if args.thread is not None and args.thread.name == "run_worker":
        print(f"visor: a worker ended: {args.exc_value}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    threading.__excepthook__(args)
