"""What is wrong is told in one line and by the exit code, before any client opens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_runtime.facts import read_facts
from registry.catalogue import Registry
from registry.stores import open_store
from tests.flink_scoring.sql_models import sum_model
from tests.onnx_models import linear_classifier

pytestmark = pytest.mark.integration


def ferry_sql(store: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flink_scoring.sql.cli", *arguments],
        env={**os.environ, "FERRY_STORE": store}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('model = "rose"', 3, "rose:production has no entry yet"),
        ('model = "wine@9"', 3, "wine has no version 9"),
        ('model = "./none.onnx"', 3, "there is no file"),
        ('model = "./damaged.onnx"', 5, "refused by gate"),
        ('model = "wine"\narguments = ["a"]', 2, "Predict: arguments names 1, the model takes 3"),
        ('model = "wine"\nreturns = "price"', 2, "names none or several of the model's outputs: label"),
        ('modle = "wine"', 2, "functions.Predict.modle is not a key of this table"),
        ('model = "s3://models/none.onnx?endpoint=http://127.0.0.1:9"', 6, "127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    minio_store_url: str, tmp_path: Path, text: str, code: int, says: str
) -> None:
    registry, data = Registry.open(minio_store_url), linear_classifier(3, 3)
    registry.promote("wine", registry.publish("wine", data, read_facts(data)).version)
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    file = tmp_path / "functions.toml"
    file.write_text(f"[functions.Predict]\n{text}\n")
    result = ferry_sql(minio_store_url, "--functions", str(file), "--list")
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in result.stderr


def test_an_object_of_any_bucket_is_a_model(minio_store_url: str, tmp_path: Path) -> None:
    folder, _, query = minio_store_url.partition("?")
    open_store(f"{folder}/files?{query}").put("sum.onnx", sum_model(2))
    file = tmp_path / "functions.toml"
    file.write_text(f'[functions.Total]\nmodel = "{folder}/files/sum.onnx?{query}"\n')
    result = ferry_sql(minio_store_url, "--functions", str(file), "--list")
    assert result.returncode == 0, result.stderr
    assert "Total(x_0 DOUBLE, x_1 DOUBLE)" in result.stderr
