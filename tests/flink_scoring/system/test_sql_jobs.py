"""Functions in Python jobs: registered in a table environment, and on a DataStream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from tests.flink_scoring.sql_models import columns_model, sum_model

pytestmark = pytest.mark.early

JOB = Path(__file__).parent.parent / "sql_job.py"


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    store = (tmp_path / "registry").as_uri()
    registry = Registry.open(store)
    data = columns_model()
    registry.promote("price", registry.publish("price", data, read_facts(data)).version)
    (tmp_path / "twice.onnx").write_bytes(sum_model(1, factor=2))
    (tmp_path / "total.onnx").write_bytes(sum_model(3))
    (tmp_path / "functions.toml").write_text(
        f"""
        registry = "{store}"
        [functions.Price]
        model = "price"
        returns = ["price", "where", "both"]
        with_model = true
        [functions.Total]
        model = "./total.onnx"
        shape = "array"
        [functions.Twice]
        model = "./twice.onnx"
        """
    )
    environ = {**os.environ, "FERRY_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(JOB), str(tmp_path / "functions.toml")]
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=None, check=False, cwd=tmp_path
    )
    line = next((line for line in result.stdout.splitlines() if line.startswith("FOUND ")), None)
    assert line, result.stdout + result.stderr
    return dict(json.loads(line.removeprefix("FOUND ")))


def test_tables_and_streams_are_scored_in_python_jobs(found: dict[str, Any]) -> None:
    assert found["signatures"]["Price"] == (
        "Price(age DOUBLE, visits BIGINT, town STRING, member BOOLEAN) -> "
        "ROW<price DOUBLE, where STRING, both ARRAY<DOUBLE>, version BIGINT, generation BIGINT>"
    )
    assert found["price"] == [
        [30.0, 130.0, "Ulm", [130.0, 1.0], 1, 1, 130.0],
        [40.0, 40.0, "Bonn", [40.0, 2.0], 1, 1, 140.0],
        [50.0, None, None, None, 1, 1, 150.0],
    ]
    assert found["filtered"] == [[30.0]]
    assert found["total"] == [[6.0], [None]]
    assert found["alone"] == [[3.0]]
    assert found["stream"] == [[1, 2.0, 4.0], [2, 5.0, 10.0]]
