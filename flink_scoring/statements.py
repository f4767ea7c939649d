"""The job as Flink's SQL: its settings, a source table, a sink table, and one INSERT between them.

One sink writes scored records and dead letters alike: its metadata column `topic` routes each row, so both
are in one transaction and no record can be in neither or in both. Keys, headers and the values of dead
letters never pass through Python.
"""

from __future__ import annotations

from collections.abc import Mapping

from ferryline.flink_scoring.columns import columns_of
from ferryline.flink_scoring.options import TRANSACTION_SECONDS, Guarantee, JobOptions
from ferryline.flink_scoring.positions import StartPositions, scan_settings
from ferryline.flink_scoring.topics import OutputLimits
from ferryline.flink_scoring.tuning import tune
from ferryline.streams import deadletters

SOURCE = "ferry_source"
SINK = "ferry_sink"
FUNCTION = "ferry_score"

# a producer that is given another moment ends the job: brokers refuse the future, clients what is before 1970
_KAFKA_TAKES_TIME = "`timestamp` BETWEEN TO_TIMESTAMP_LTZ(0, 3) AND CURRENT_ROW_TIMESTAMP()"
_PRODUCER_BUFFER = 32 * 1024 * 1024
_DEFAULT_REQUEST = 1024 * 1024


def job_settings(options: JobOptions) -> dict[str, str]:
    """Flink's settings for this job."""
    tuning = tune(options.latency_ms, options.batch_records)
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
        "python.fn-execution.bundle.time": str(tuning.bundle_ms),
        "python.fn-execution.bundle.size": str(tuning.bundle_records),
        "python.fn-execution.arrow.batch.size": str(tuning.arrow_records),
        # no operator here changes or keeps a row it was given; copying each row is a third of the JVM's work
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
    }


def source_table(options: JobOptions, start: StartPositions) -> str:
    """The table of the pipeline's source topic; key and value are the bytes Kafka has."""
    return f"""
        CREATE TEMPORARY TABLE {options.named(SOURCE)} (
            `key` BYTES,
            `value` BYTES,
            `topic` STRING METADATA VIRTUAL,
            `partition` INT METADATA VIRTUAL,
            `offset` BIGINT METADATA VIRTUAL,
            `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
            `headers` MAP<STRING NOT NULL, BYTES> METADATA VIRTUAL
        ) WITH ({rendered(_source_settings(options, start))})"""


def sink_table(options: JobOptions, limits: OutputLimits) -> str:
    """The table of both output topics."""
    return f"""
        CREATE TEMPORARY TABLE {options.named(SINK)} (
            `key` BYTES,
            `value` BYTES,
            `topic` STRING METADATA,
            `headers` MAP<STRING NOT NULL, BYTES> METADATA,
            `timestamp` TIMESTAMP_LTZ(3) METADATA
        ) WITH ({rendered(_sink_settings(options, limits))})"""


def insert_statement(options: JobOptions) -> str:
    """Score every record once, and send it where its outcome belongs.

    A scored record has the Kafka timestamp of the record it is about, so that a backlog keeps its times; a
    dead letter has that of its own writing, so that it is kept as long as any.
    """
    scoring = options.scoring
    arguments = ", ".join(f"`{name}`" for name in columns_of(options.pipeline))
    alive = "outcome.reason IS NULL"
    return f"""
        INSERT INTO {options.named(SINK)}
        SELECT
            `key`,
            CASE WHEN {alive} THEN outcome.scored WHEN outcome.keeps_value THEN `value` END,
            CASE WHEN {alive} THEN {text(scoring.topic)} ELSE {text(scoring.dead_letters)} END,
            CASE WHEN {alive} THEN `headers` ELSE MAP_UNION(`headers`, {_letter(options)}) END,
            CASE WHEN {alive} AND {_KAFKA_TAKES_TIME} THEN `timestamp` END
        FROM (SELECT *, {options.named(FUNCTION)}({arguments}) AS outcome FROM {options.named(SOURCE)})
    """  # noqa: S608 - the names are checked, the texts are quoted


def _letter(options: JobOptions) -> str:
    """The headers of a dead letter beside those the record had."""
    headers = {
        deadletters.REASON: "outcome.reason",
        deadletters.DETAIL: "outcome.detail",
        deadletters.TOPIC: "`topic`",
        deadletters.PARTITION: "CAST(`partition` AS STRING)",
        deadletters.OFFSET: "CAST(`offset` AS STRING)",
        deadletters.PIPELINE: text(options.pipeline.name),
        deadletters.TIMESTAMP: "CAST(`timestamp` AS STRING)",
    }
    pairs = (f"{text(name)}, ENCODE({source}, 'UTF-8')" for name, source in headers.items())
    return f"MAP[{', '.join(pairs)}]"


def _source_settings(options: JobOptions, start: StartPositions) -> dict[str, str]:
    return {
        **_common_settings(options),
        **scan_settings(start),
        "properties.max.poll.records": str(tune(options.latency_ms).poll_records),
    }


def _sink_settings(options: JobOptions, limits: OutputLimits) -> dict[str, str]:
    scoring, tuning = options.scoring, tune(options.latency_ms)
    return {
        **_common_settings(options),
        **delivery_settings(options, prefix=options.name),
        "topic": f"{scoring.topic};{scoring.dead_letters}",
        # a record the producer refuses would end the whole task manager, so nothing is refused here
        "properties.max.request.size": str(max(limits.largest_message, _DEFAULT_REQUEST)),
        "properties.buffer.memory": str(max(2 * limits.largest_message, _PRODUCER_BUFFER)),
        "properties.linger.ms": str(tuning.linger_ms),
        "properties.batch.size": str(tuning.producer_bytes),
    }


def delivery_settings(options: JobOptions, *, prefix: str) -> dict[str, str]:
    """How a sink delivers; `prefix` begins its transactional ids and is its own alone."""
    if options.guarantee is Guarantee.AT_LEAST_ONCE:
        return {"sink.delivery-guarantee": str(options.guarantee)}
    return {
        "sink.delivery-guarantee": str(options.guarantee),
        "sink.transactional-id-prefix": prefix,
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


def rendered(settings: Mapping[str, str]) -> str:
    """The options of a table, between its parentheses."""
    return ", ".join(f"{text(name)} = {text(value)}" for name, value in settings.items())


def text(value: object) -> str:
    """A SQL string literal."""
    doubled = str(value).replace("'", "''")
    return f"'{doubled}'"
