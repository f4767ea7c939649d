"""Hands the job to Flink."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment, TableResult

from ferryline.flink_scoring import statements
from ferryline.flink_scoring.function import FunctionSpec, score_function
from ferryline.flink_scoring.labelling import statements as labelling
from ferryline.flink_scoring.labelling.function import judge_function
from ferryline.flink_scoring.options import require_process_mode
from ferryline.flink_scoring.preparation import PreparedPipeline, keep_positions
from ferryline.flink_scoring.restoring import (
    EMBEDDED,
    JOB_ID,
    RESTORE,
    TARGET,
    StateFolders,
    flink_listing,
    note_job,
    restore_path,
)
from ferryline.flink_scoring.several import job_name, whole_job
from ferryline.registry.errors import StoreUnreachableError

log = structlog.get_logger(__name__)


def submit(pipelines: Sequence[PreparedPipeline], *, restore: str | None = None) -> TableResult:
    """Submit the job to the cluster that `flink run` names: all pipelines in one.

    Args:
        pipelines: what each is told.
        restore: the checkpoint or savepoint to go on from, or `newest`; None for none.

    Raises:
        UsageError: Flink is set to run Python functions where they cannot work.
        NotFoundError: the newest state is wanted, and the cluster keeps none.
        StoreUnreachableError: it cannot be looked for.
        BrokerUnreachableError: the offsets where it begins cannot be committed.
    """
    every = [pipeline.options for pipeline in pipelines]
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    config = tables.get_config()
    require_process_mode(config.get("python.execution-mode", "process"))
    settings = statements.job_settings(whole_job(every)) | {"pipeline.name": job_name(every)}
    folders = StateFolders.of(config.get, job_name(every))
    settings |= folders.settings | _restored(folders, restore)
    is_embedded = config.get(TARGET, "") == EMBEDDED
    if not is_embedded:
        settings[JOB_ID] = folders.new_job_id()
    for name, value in settings.items():
        config.set(name, value)
    inserts = tables.create_statement_set()
    for pipeline in pipelines:
        inserts.add_insert_sql(_scoring(tables, pipeline))
        if pipeline.options.pipeline.labels is not None:
            inserts.add_insert_sql(_accuracy(tables, pipeline))
    if not config.get(RESTORE, ""):
        # a state of an earlier release has partitions without an offset: these are read from their beginning
        # where the group has none, and nothing is lost
        for pipeline in pipelines:
            keep_positions(pipeline.options.kafka, pipeline.starts.values())
    result = inserts.execute()
    if is_embedded:
        _note(result, folders)
    return result


def _restored(folders: StateFolders, restore: str | None) -> dict[str, str]:
    if restore is None:
        return {}
    path = restore_path(restore, folders, flink_listing(get_gateway().jvm))
    if path is None:
        log.info("there is no state yet, so the job begins anew", looked_in=folders.checkpoints)
        return {}
    log.info("restoring", state=path)
    return {RESTORE: path}


def _note(result: TableResult, folders: StateFolders) -> None:
    """So that `--restore newest` finds the savepoint of a `flink stop`."""
    client = result.get_job_client()
    try:
        if client is not None:
            note_job(get_gateway().jvm, folders, str(client.get_job_id()))
    except StoreUnreachableError as error:
        log.warning("a savepoint of this job must be restored by its URL", reason=str(error))


def _scoring(tables: TableEnvironment, pipeline: PreparedPipeline) -> str:
    options, limits = pipeline.options, pipeline.limits
    spec = FunctionSpec(
        options.pipeline, options.store, limits.largest_dead_value, options.signatures, limits.source_id
    )
    tables.create_temporary_function(options.named(statements.FUNCTION), score_function(spec))
    tables.execute_sql(statements.source_table(options, pipeline.starts[options.pipeline.source.topic]))
    tables.execute_sql(statements.sink_table(options, limits))
    return statements.insert_statement(options)


def _accuracy(tables: TableEnvironment, pipeline: PreparedPipeline) -> str:
    options = pipeline.options
    tables.create_temporary_function(labelling.label_function(options), judge_function(options.pipeline))
    for statement in labelling.label_statements(options, pipeline.starts):
        tables.execute_sql(statement)
    return labelling.accuracy_insert(options)
