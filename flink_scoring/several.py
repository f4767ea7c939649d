"""Several pipelines in one job: what tells them apart, and what they share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ferryline.flink_scoring.options import JobOptions
from ferryline.registry.errors import UsageError

_NO_WORD = re.compile(r"\W")


def tell_apart(pipelines: Sequence[JobOptions]) -> list[JobOptions]:
    """The pipelines of one job, each with table names of its own; a job of one keeps the plain names.

    Raises:
        UsageError: two have one name, or write into one topic.
    """
    _require_names_apart(pipelines)
    _require_topics_apart(pipelines)
    if len(pipelines) == 1:
        return list(pipelines)
    return [replace(options, suffix=_suffix(options)) for options in pipelines]


def whole_job(pipelines: Sequence[JobOptions]) -> JobOptions:
    """What holds for the job as a whole: the first pipeline's options, with what the most demanding needs.

    A Flink job has one parallelism, one checkpoint interval and one size of batches for all that runs in it.
    """
    return replace(
        pipelines[0],
        parallelism=max(options.parallelism for options in pipelines),
        checkpoint_seconds=min(options.checkpoint_seconds for options in pipelines),
        latency_ms=min(options.latency_ms for options in pipelines),
        batch_records=min(options.batch_records for options in pipelines),
    )


def job_name(pipelines: Sequence[JobOptions]) -> str:
    """The job's name: `digits-scoring`, or `digits+phishing-scoring`."""
    first, *others = pipelines
    if not others:
        return first.name
    return "+".join(options.pipeline.name for options in pipelines) + "-scoring"


def outputs(options: JobOptions) -> list[str]:
    """The topics that a pipeline writes, the ledger of its replays among them."""
    scoring = options.scoring
    written = [scoring.topic, scoring.dead_letters, scoring.replays, options.pipeline.accuracy_topic]
    return [topic for topic in written if topic]


def _require_names_apart(pipelines: Sequence[JobOptions]) -> None:
    seen: dict[str, str] = {}
    for options in pipelines:
        name = options.pipeline.name
        other = seen.setdefault(_suffix(options), name)
        if other == name and _count(pipelines, name) > 1:
            raise UsageError(f"two pipelines are called {name}; give each pipeline file a name of its own")
        if other != name:
            raise UsageError(
                f"pipelines {other} and {name} would share the names of their tables; rename one of them"
            )


def _count(pipelines: Sequence[JobOptions], name: str) -> int:
    return sum(options.pipeline.name == name for options in pipelines)


def _require_topics_apart(pipelines: Sequence[JobOptions]) -> None:
    written = Counter(topic for options in pipelines for topic in outputs(options))
    for topic, count in written.items():
        if count > 1:
            names = [options.pipeline.name for options in pipelines if topic in outputs(options)]
            raise UsageError(
                f"pipelines {' and '.join(names)} both write topic {topic}; give each outputs of its own"
            )


def _suffix(options: JobOptions) -> str:
    return "_" + _NO_WORD.sub("_", options.pipeline.name)
