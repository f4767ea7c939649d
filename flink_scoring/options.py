"""What a scoring job is told: the pipeline file, flags and the environment; checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ferryline.flink_scoring.positions import Start
from ferryline.flink_scoring.tuning import (
    DEFAULT_BATCH_RECORDS,
    DEFAULT_LATENCY_MS,
    batch_records,
    latency_advice,
)
from ferryline.registry.errors import UsageError
from ferryline.registry.settings import load_settings
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.stores import open_store
from ferryline.streams.pipeline import Pipeline, ScoringSpec, load_pipeline

TRANSACTION_SECONDS = 600
"""How long the broker keeps an open transaction; its own maximum is 15 minutes by default.

It must outlast a checkpoint interval and the restart after a crash.
"""
LONGEST_CHECKPOINT_SECONDS = TRANSACTION_SECONDS / 2


class Guarantee(StrEnum):
    """How often a record may appear in the output."""

    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Everything that decides what the job does.

    Attributes:
        pipeline: the pipeline.
        store: URL of the registry's store, as the task managers reach it.
        kafka: bootstrap servers, as the task managers reach them.
        parallelism: subtasks; slots of the cluster that the job takes.
        checkpoint_seconds: time between checkpoints; with exactly-once a record shows at the next one.
        guarantee: how often a record may appear in the output.
        start: where to begin; `committed` falls back to the pipeline's own start.
        signatures: `required` where the settings here say so, so that no task manager forgets it.
        latency_ms: how long a record may take, see `tune`.
        batch_records: records of a full batch.
        suffix: what ends the names of this pipeline's tables, where a job has several pipelines.
    """

    pipeline: Pipeline
    store: str
    kafka: str
    parallelism: int
    checkpoint_seconds: float
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE
    start: Start = Start.COMMITTED
    signatures: SignaturePolicy | None = None
    latency_ms: int = DEFAULT_LATENCY_MS
    batch_records: int = DEFAULT_BATCH_RECORDS
    suffix: str = ""

    @property
    def name(self) -> str:
        """Job name, consumer group and prefix of transactional ids; a trainer has another group."""
        return f"{self.pipeline.name}-scoring"

    def named(self, kind: str) -> str:
        """The name of this pipeline's table or function of a kind, such as `ferry_source`."""
        return f"{kind}{self.suffix}"

    @property
    def scoring(self) -> ScoringSpec:
        """Where the job writes."""
        return self.pipeline.require_scoring()


def resolve_options(
    path: Path,
    *,
    store: str | None = None,
    kafka: str | None = None,
    parallelism: int | None = None,
    checkpoint_seconds: float | None = None,
    latency_ms: int | None = None,
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE,
    start: Start = Start.COMMITTED,
) -> JobOptions:
    """The options of a job; None takes the pipeline's value, or that of `FERRY_STORE` and `FERRY_KAFKA`.

    Raises:
        UsageError: the pipeline file or one of the values is wrong.
    """
    pipeline = load_pipeline(path)
    scoring = pipeline.require_scoring()
    settings = load_settings(store=store, kafka=kafka)
    open_store(settings.store)  # a URL of a wrong form is found here and not on a task manager
    return JobOptions(
        pipeline=pipeline,
        store=settings.store,
        kafka=settings.kafka,
        parallelism=parallelism or scoring.parallelism,
        checkpoint_seconds=_checked_interval(checkpoint_seconds or scoring.checkpoint_seconds, guarantee),
        guarantee=guarantee,
        start=start,
        latency_ms=latency_ms or scoring.latency_ms,
        batch_records=batch_records(pipeline.source),
        signatures=settings.signatures if settings.signatures is SignaturePolicy.REQUIRED else None,
    )


def advise_on_latency(options: JobOptions) -> str | None:
    """What to tell someone who asked for a latency that checkpoints do not give; None for nothing."""
    asked = "latency_ms" in options.scoring.model_fields_set or options.latency_ms != DEFAULT_LATENCY_MS
    if not asked:
        return None
    exactly_once = options.guarantee is Guarantee.EXACTLY_ONCE
    return latency_advice(options.latency_ms, options.checkpoint_seconds, exactly_once=exactly_once)


def require_process_mode(mode: str) -> None:
    """Return when Flink runs Python functions in processes of their own.

    Args:
        mode: the value of `python.execution-mode`.

    Raises:
        UsageError: it does not.
    """
    if mode.strip().lower() != "process":
        raise UsageError(
            f"python.execution-mode is {mode!r}, where numpy and ONNX Runtime hang inside the JVM (pemja) "
            "at the first record; remove the setting, or set it to 'process'"
        )


def _checked_interval(seconds: float, guarantee: Guarantee) -> float:
    if guarantee is Guarantee.EXACTLY_ONCE and seconds > LONGEST_CHECKPOINT_SECONDS:
        raise UsageError(
            f"a checkpoint every {seconds:g} s leaves too little of a transaction's {TRANSACTION_SECONDS} s "
            f"for a restart; use at most {LONGEST_CHECKPOINT_SECONDS:g} s, "
            f"or --guarantee {Guarantee.AT_LEAST_ONCE}"
        )
    return seconds
