"""The peer's job, by `flink run -py`: KAFKA SOURCE SINK MODEL."""

from __future__ import annotations

import sys

from pyflink.table import EnvironmentSettings, TableEnvironment

CHECKPOINT = "5 s"


def main() -> None:
    """Submit one INSERT: source, the Java function, sink."""
    kafka, source, sink, model = sys.argv[1:]
    table_env = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    settings = {
        "pipeline.name": sink,
        "parallelism.default": "1",
        "execution.checkpointing.interval": CHECKPOINT,
        "pipeline.global-job-parameters": f"model:{model}",
    }
    for name, value in settings.items():
        table_env.get_config().set(name, value)
    common = f"""'connector' = 'kafka', 'properties.bootstrap.servers' = '{kafka}', 'key.format' = 'raw',
        'key.fields' = 'key', 'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY'"""
    table_env.execute_sql(f"""CREATE TEMPORARY TABLE records (`key` BYTES, `value` BYTES) WITH ({common},
        'topic' = '{source}', 'properties.group.id' = '{sink}', 'scan.startup.mode' = 'earliest-offset')""")
    table_env.execute_sql(f"""CREATE TEMPORARY TABLE scored (`key` BYTES, `value` BYTES) WITH ({common},
        'topic' = '{sink}', 'sink.delivery-guarantee' = 'exactly-once',
        'sink.transactional-id-prefix' = '{sink}', 'sink.transaction-naming-strategy' = 'POOLING',
        'properties.transaction.timeout.ms' = '600000', 'properties.linger.ms' = '5')""")
    table_env.execute_sql("CREATE TEMPORARY FUNCTION score AS 'DigitsScore' LANGUAGE JAVA")
    table_env.execute_sql("INSERT INTO scored SELECT `key`, score(`value`) FROM records")


if __name__ == "__main__":
    main()
