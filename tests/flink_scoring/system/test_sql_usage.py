"""`ferry-sql` as a process, with models on MinIO."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ferryline.registry.stores import open_store
from tests.flink_scoring.sql_models import sum_model
from tests.support.waiting import DEADLINE


def ferry_sql(store: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ferryline.flink_scoring.sql.cli", *arguments],
        env={**os.environ, "FERRY_STORE": store}, capture_output=True, text=True, timeout=DEADLINE,
        check=False,
    )  # fmt: skip


def test_an_object_of_any_bucket_is_a_model_and_one_that_is_not_there_is_told(
    minio_store_url: str, tmp_path: Path
) -> None:
    folder, _, query = minio_store_url.partition("?")
    open_store(f"{folder}/files?{query}").put("sum.onnx", sum_model(2))
    file = tmp_path / "functions.toml"
    file.write_text(f'[functions.Total]\nmodel = "{folder}/files/sum.onnx?{query}"\n')
    result = ferry_sql(minio_store_url, "--functions", str(file), "--list")
    assert result.returncode == 0, result.stderr
    assert "Total(x_0 DOUBLE, x_1 DOUBLE)" in result.stderr

    file.write_text('[functions.Total]\nmodel = "rose"\n')
    result = ferry_sql(minio_store_url, "--functions", str(file), "--list")
    assert result.returncode == 3
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "rose:production has no entry yet" in errors[0]
    assert "Traceback" not in result.stderr
