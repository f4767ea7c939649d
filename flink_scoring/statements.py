"""The job as Flink's SQL: its settings, a source table, a sink table, and one INSERT between them.

One sink writes scored records and dead letters alike: its metadata column `topic` routes each row, so both
are in one transaction and no record can be in neither or in both. Keys, headers and the values of dead
letters never pass through Python.
"""

from __future__ import annotations

from collections.abc import Mapping

from flink_scoring.options import TRANSACTION_SECONDS, Guarantee, JobOptions, Start
from flink_scoring.topics import OutputLimits
from streams import deadletters

SOURCE = "ferry_source"
SINK = "ferry_sink"
FUNCTION = "ferry_score"

_PRODUCER_BUFFER = 32 * 1024 * 1024
_DEFAULT_REQUEST = 1024 * 1024


def job_settings(options: JobOptions) -> dict[str, str]:
    """Flink's settings for this job."""
    return {
        "pipeline.name": options.name,
        "parallelism.default": str(options.parallelism),
        "execution.checkpointing.interval": f"{int(options.checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        # while the checkpoint store is away, scoring goes on and what was read stays to be committed
        "execution.checkpointing.tolerable-failed-checkpoints": str(2**31 - 1),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # without a last attempt, as is this strategy's default
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        # a batch is scored when it is full or this old: the time is the latency at low rates
        "python.fn-execution.bundle.time": "100",
        "python.fn-execution.bundle.size": "2000",
        "python.fn-execution.arrow.batch.size": "2000",
        "table.local-time-zone": "UTC",
    }


def source_table(options: JobOptions) -> str:
    """The table of the pipeline's source topic; key and value are the bytes Kafka has."""
    return f"""
        CREATE TEMPORARY TABLE {SOURCE} (
            `key` BYTES,
            `value` BYTES,
            `topic` STRING METADATA VIRTUAL,
            `partition` INT METADATA VIRTUAL,
            `offset` BIGINT METADATA VIRTUAL,
            `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
            `headers` MAP<STRING NOT NULL, BYTES> METADATA VIRTUAL
        ) WITH ({_rendered(_source_settings(options))})"""


def sink_table(options: JobOptions, limits: OutputLimits) -> str:
    """The table of both output topics."""
    return f"""
        CREATE TEMPORARY TABLE {SINK} (
            `key` BYTES,
            `value` BYTES,
            `topic` STRING METADATA,
            `headers` MAP<STRING NOT NULL, BYTES> METADATA
        ) WITH ({_rendered(_sink_settings(options, limits))})"""


def insert_statement(options: JobOptions) -> str:
    """Score every record once, and send it where its outcome belongs."""
    scoring = options.scoring
    arguments = "`value`, `key`" if options.pipeline.source.event_time else "`value`, `key`, `timestamp`"
    alive = "outcome.reason IS NULL"
    return f"""
        INSERT INTO {SINK}
        SELECT
            `key`,
            CASE WHEN {alive} THEN outcome.scored WHEN outcome.keeps_value THEN `value` END,
            CASE WHEN {alive} THEN {_text(scoring.topic)} ELSE {_text(scoring.dead_letters)} END,
            CASE WHEN {alive} THEN `headers` ELSE MAP_UNION(`headers`, {_letter(options)}) END
        FROM (SELECT *, {FUNCTION}({arguments}) AS outcome FROM {SOURCE})
    """  # noqa: S608 - the names are checked, the texts are quoted


def _letter(options: JobOptions) -> str:
    """The headers of a dead letter beside those the record had."""
    headers = {
        deadletters.REASON: "outcome.reason",
        deadletters.DETAIL: "outcome.detail",
        deadletters.TOPIC: "`topic`",
        deadletters.PARTITION: "CAST(`partition` AS STRING)",
        deadletters.OFFSET: "CAST(`offset` AS STRING)",
        deadletters.PIPELINE: _text(options.pipeline.name),
    }
    pairs = (f"{_text(name)}, ENCODE({source}, 'UTF-8')" for name, source in headers.items())
    return f"MAP[{', '.join(pairs)}]"


def _source_settings(options: JobOptions) -> dict[str, str]:
    committed = options.start is Start.COMMITTED
    return {
        **_common_settings(options),
        "topic": options.pipeline.source.topic,
        "properties.group.id": options.name,
        "properties.auto.offset.reset": options.pipeline.source.start,
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "group-offsets" if committed else f"{options.start}-offset",
    }


def _sink_settings(options: JobOptions, limits: OutputLimits) -> dict[str, str]:
    scoring = options.scoring
    return {
        **_common_settings(options),
        **_delivery(options),
        "topic": f"{scoring.topic};{scoring.dead_letters}",
        # a record the producer refuses would end the whole task manager, so nothing is refused here
        "properties.max.request.size": str(max(limits.largest_message, _DEFAULT_REQUEST)),
        "properties.buffer.memory": str(max(2 * limits.largest_message, _PRODUCER_BUFFER)),
        "properties.linger.ms": "5",
    }


def _delivery(options: JobOptions) -> dict[str, str]:
    if options.guarantee is Guarantee.AT_LEAST_ONCE:
        return {"sink.delivery-guarantee": str(options.guarantee)}
    return {
        "sink.delivery-guarantee": str(options.guarantee),
        "sink.transactional-id-prefix": options.name,
        # ids are used again instead of counted up, which would leave the broker one per checkpoint to keep
        "sink.transaction-naming-strategy": "POOLING",
        "properties.transaction.timeout.ms": str(TRANSACTION_SECONDS * 1000),
    }


def _common_settings(options: JobOptions) -> dict[str, str]:
    return {
        "connector": "kafka",
        "properties.bootstrap.servers": options.kafka,
        "key.format": "raw",
        "key.fields": "key",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }


def _rendered(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{_text(name)} = {_text(value)}" for name, value in settings.items())


def _text(value: object) -> str:
    """A SQL string literal."""
    doubled = str(value).replace("'", "''")
    return f"'{doubled}'"
