"""The trainer put together from a pipeline and settings."""

from __future__ import annotations

import threading

import structlog

from ferryline.model_runtime.gate import Gate, load_gate_limits
from ferryline.registry.opening import open_registry
from ferryline.registry.settings import Settings
from ferryline.registry.systems import require_linux
from ferryline.streams.pipeline import Pipeline
from ferryline.trainer.delivery import Delivery
from ferryline.trainer.errors import StateUnusableError
from ferryline.trainer.loop import RunOptions, TrainerLoop
from ferryline.trainer.metrics import TrainerMetrics, serve_metrics
from ferryline.trainer.publisher import Publisher
from ferryline.trainer.source import KafkaSource
from ferryline.trainer.state import StateFile
from ferryline.trainer.training import Training

_STATE_FOLDER = "trainer"


def run_trainer(
    pipeline: Pipeline,
    settings: Settings,
    options: RunOptions,
    *,
    stop: threading.Event,
    from_scratch: bool = False,
    metrics_port: int | None = None,
) -> None:
    """Train until `stop` is set or `options` say that it is done.

    Raises:
        FerryError: as the parts raise at the start, and then as `TrainerLoop.run`.
    """
    require_linux("ferry-trainer run")
    log = structlog.get_logger().bind(pipeline=pipeline.name)
    registry = open_registry(settings)
    state = StateFile(settings.state / _STATE_FOLDER, pipeline)
    state.acquire()
    try:
        training = Training(pipeline)
        if not from_scratch:
            _restore(training, state)
        metrics = TrainerMetrics(pipeline.model)
        port, stop_metrics = (
            serve_metrics(metrics, metrics_port) if metrics_port is not None else (None, None)
        )
        delivery = Delivery(
            registry,
            pipeline,
            run=training.progress.run,
            last_version=training.progress.last_version,
            metrics=metrics,
            inspect=Gate(load_gate_limits()).admit,
            log=log,
        )
        publisher = Publisher(delivery, metrics, log=log)
        source = KafkaSource(settings.kafka, pipeline.source, pipeline.name, log=log)
        log.info(
            "started",
            kafka=settings.kafka,
            topic=pipeline.source.topic,
            store=registry.store.url,
            state=str(state.path),
            records=training.progress.records,
            metrics_port=port,
        )
        try:
            TrainerLoop(training, source, publisher, state, metrics, options, stop=stop, log=log).run()
        finally:
            if stop_metrics is not None:
                stop_metrics()
    finally:
        state.release()


def _restore(training: Training, state: StateFile) -> None:
    found = state.load()
    if found is None:
        return
    try:
        training.restore(*found)
    except (ValueError, IndexError) as error:
        raise StateUnusableError(
            f"{state.path} does not fit this trainer ({error}). It was left as it is: learn anew with "
            "--from-scratch (which replaces it), or name another folder with --state"
        ) from error
