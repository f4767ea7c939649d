"""Flink's and Kafka's batching, chosen from the one thing that users know: how long a record may take.

A record waits for its batch to be full or old enough. When the job cannot keep up, batches are full and their
age does not matter; when it can, the age is the wait. So batches are as large as memory likes, and their age
follows from the latency asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferryline.streams.pipeline import RecordFormat, SourceSpec

DEFAULT_LATENCY_MS = 100
DEFAULT_BATCH_RECORDS = 2000

# a batch is held in the JVM, on the wire and in the worker at once; at its end the JVM waits for the worker
# and then the worker for the JVM, so a larger one gives more records a second
_BATCH_BYTES = 16 * 1024 * 1024
_FEWEST, _MOST = 500, 40_000
# the worker begins with the first part of a batch while the JVM packs the next
_PARTS = 16
# what JSON or Avro takes for a number, and for what is around all of them, at a guess
_NUMBER_BYTES, _AROUND_BYTES = 8, 128
_LONGEST_LINGER_MS = 5


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of a job.

    Attributes:
        bundle_ms: how often a batch is looked at and scored if it is this old, so at twice this age at most …
        bundle_records: … or has so many records.
        arrow_records: records that are handed to the worker, and scored, at once.
        linger_ms: how long the sink waits for more to send at once.
        producer_bytes: what the sink sends at once at most.
        poll_records: what the source takes from Kafka's client at once at most.
    """

    bundle_ms: int
    bundle_records: int
    arrow_records: int
    linger_ms: int
    producer_bytes: int = 256 * 1024
    poll_records: int = 5000


def tune(latency_ms: int, batch_records: int = DEFAULT_BATCH_RECORDS) -> Tuning:
    """The settings for a latency: half of it is for waiting, half for scoring and for two ways through Kafka.

    Args:
        latency_ms: milliseconds from the source topic to the output, where the job keeps up.
        batch_records: see `batch_records`.
    """
    linger = min(_LONGEST_LINGER_MS, latency_ms // 10)
    return Tuning(
        bundle_ms=max((latency_ms // 2 - linger) // 2, 1),
        bundle_records=batch_records,
        arrow_records=max(batch_records // _PARTS, _FEWEST),
        linger_ms=linger,
    )


def batch_records(source: SourceSpec) -> int:
    """Records of a full batch: what about 16 MiB hold."""
    width = source.features.width
    size = 4 * width if source.format is RecordFormat.FLOAT32 else _NUMBER_BYTES * width + _AROUND_BYTES
    return min(max(_BATCH_BYTES // size, _FEWEST), _MOST)


def latency_advice(latency_ms: int, checkpoint_seconds: float, *, exactly_once: bool) -> str | None:
    """What to say to someone who asked for a latency that checkpoints do not give; None for nothing.

    Under exactly-once a reader of committed records sees a record when the checkpoint after it is complete.
    """
    if not exactly_once or latency_ms >= checkpoint_seconds * 1000:
        return None
    return (
        f"latency_ms = {latency_ms} holds for readers of uncommitted records; others see a record at the "
        f"next checkpoint, up to {checkpoint_seconds:g} s later: lower checkpoint_seconds, "
        "or use --guarantee at-least-once"
    )
