"""Delayed labels as Flink's SQL: predictions are read back, joined to labels, and counted by window.

Predictions come from the scored topic, committed ones only, and not from the function that scores: the join
can then neither slow scoring down nor make Flink score a record twice, and it sees what every consumer sees.

Time is Kafka's timestamp, which a scored record has from the record it is about. Windows go by the clock: a
join by event time holds its watermark back by all the time that a label may take, so event-time windows would
close that much too late to be of use. Every label is counted once whichever window it falls into.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from ferryline.flink_scoring.options import JobOptions
from ferryline.flink_scoring.positions import StartPositions, scan_settings
from ferryline.flink_scoring.statements import delivery_settings, rendered, text
from ferryline.streams.pipeline import LabelsSpec

GRACE_SECONDS = 60.0
"""How long a label waits for its prediction, which is committed at the next checkpoint or after a restart."""

_LABELS_IDLE = timedelta(seconds=10)


def label_function(options: JobOptions) -> str:
    """The name of the function that judges labels."""
    return options.named("ferry_judge")


def labels_group(options: JobOptions) -> str:
    """The consumer group that reads labels and predictions back."""
    return f"{options.name}-labels"


def label_statements(options: JobOptions, starts: Mapping[str, StartPositions]) -> list[str]:
    """What makes the tables and views; to be executed in this order.

    Args:
        options: of the pipeline.
        starts: where to begin in the topics of labels and predictions, by topic.
    """
    return [
        _labels_table(options, starts[_labels(options).topic]),
        _predictions_table(options, starts[options.scoring.topic]),
        _accuracy_table(options),
        _joined_view(options),
        _judged_view(options),
    ]


def accuracy_insert(options: JobOptions) -> str:
    """One record per window and version that labels came for."""
    window = _interval(timedelta(seconds=_labels(options).window_seconds))
    return f"""
        INSERT INTO {options.named("ferry_accuracy")}
        SELECT
            CAST(window_start AS TIMESTAMP_LTZ(3)), CAST(window_end AS TIMESTAMP_LTZ(3)),
            model, version, generation,
            COUNT(is_right), SUM(is_right), CAST(SUM(is_right) AS DOUBLE) / COUNT(is_right)
        FROM TABLE(TUMBLE(TABLE {options.named("ferry_judged")}, DESCRIPTOR(judged_at), {window}))
        GROUP BY window_start, window_end, model, version, generation
        HAVING COUNT(is_right) > 0
    """  # noqa: S608 - the names are checked, the texts are quoted


def _labels_table(options: JobOptions, start: StartPositions) -> str:
    settings = {
        **_kafka(options),
        **scan_settings(start),
        "scan.watermark.idle-timeout": _duration(_LABELS_IDLE),
        "key.format": "raw",
        "key.fields": "key",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    return f"""
        CREATE TEMPORARY TABLE {options.named("ferry_labels")} (
            `key` BYTES,
            `value` BYTES,
            `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
            WATERMARK FOR `timestamp` AS `timestamp`
        ) WITH ({rendered(settings)})"""


def _predictions_table(options: JobOptions, start: StartPositions) -> str:
    settings = {
        **_kafka(options),
        **scan_settings(start),
        # while scoring stands still labels wait, for as long as any may take
        "scan.watermark.idle-timeout": _duration(_within(options)),
        "key.format": "raw",
        "key.fields": "key",
        "value.format": "json",
        "value.json.ignore-parse-errors": "true",
        "value.fields-include": "EXCEPT_KEY",
    }
    return f"""
        CREATE TEMPORARY TABLE {options.named("ferry_predictions")} (
            `key` BYTES,
            `prediction` STRING,
            `model` ROW<`name` STRING, `version` BIGINT, `generation` BIGINT>,
            `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
            WATERMARK FOR `timestamp` AS `timestamp`
        ) WITH ({rendered(settings)})"""


def _accuracy_table(options: JobOptions) -> str:
    settings = {
        **_kafka(options),
        **delivery_settings(options, prefix=labels_group(options)),
        "topic": options.pipeline.accuracy_topic,
        "format": "json",
        "json.timestamp-format.standard": "ISO-8601",
    }
    return f"""
        CREATE TEMPORARY TABLE {options.named("ferry_accuracy")} (
            `window_start` TIMESTAMP_LTZ(3),
            `window_end` TIMESTAMP_LTZ(3),
            `model` STRING,
            `version` BIGINT,
            `generation` BIGINT,
            `labelled` BIGINT,
            `right` BIGINT,
            `accuracy` DOUBLE
        ) WITH ({rendered(settings)})"""


def _joined_view(options: JobOptions) -> str:
    """Every label, with the prediction under its key where there is one within the time.

    A record that names no generation is no prediction of this job: others may write the scored topic too.
    """
    within = _interval(_within(options))
    grace = _interval(timedelta(seconds=GRACE_SECONDS))
    return f"""
        CREATE TEMPORARY VIEW {options.named("ferry_joined")} AS
        SELECT l.`value` AS label, p.prediction, p.model, p.version, p.generation
        FROM {options.named("ferry_labels")} AS l
        LEFT JOIN (
            SELECT
                `key`, prediction, `timestamp`,
                model.`name` AS model, model.version AS version, model.generation AS generation
            FROM {options.named("ferry_predictions")}
            WHERE model.generation IS NOT NULL
        ) AS p
        ON l.`key` = p.`key`
            AND p.`timestamp` BETWEEN l.`timestamp` - {within} AND l.`timestamp` + {grace}
    """  # noqa: S608 - the names are checked, the texts are quoted


def _judged_view(options: JobOptions) -> str:
    """1 for a right prediction, 0 for a wrong one, nothing for a label that tells neither."""
    return f"""
        CREATE TEMPORARY VIEW {options.named("ferry_judged")} AS
        SELECT
            model, version, generation, PROCTIME() AS judged_at,
            {label_function(options)}(label, prediction, generation) AS is_right
        FROM {options.named("ferry_joined")}
    """  # noqa: S608 - the names are checked, the texts are quoted


def _kafka(options: JobOptions) -> dict[str, str]:
    return {"connector": "kafka", "properties.bootstrap.servers": options.kafka}


def _labels(options: JobOptions) -> LabelsSpec:
    if options.pipeline.labels is None:
        raise ValueError(f"pipeline {options.pipeline.name} has no [labels]")
    return options.pipeline.labels


def _within(options: JobOptions) -> timedelta:
    return timedelta(seconds=_labels(options).within_seconds)


def _duration(span: timedelta) -> str:
    return f"{int(span.total_seconds() * 1000)} ms"


def _interval(span: timedelta) -> str:
    """A SQL interval; `text` quotes it."""
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{span.days} {hours:02}:{minutes:02}:{seconds:02}.{span.microseconds // 1000:03}"
    return f"INTERVAL {text(clock)} DAY(3) TO SECOND(3)"
