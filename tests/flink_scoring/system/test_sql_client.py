"""The issue's example as typed, and what an analyst does wrong, in Flink's stock SQL client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ferryline.deploy.stack.local import LocalStack
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from tests.flink_scoring.sql_models import sum_model
from tests.flink_scoring.sql_session import open_session, run_sql, sql_command
from tests.onnx_models import linear_classifier
from tests.support.waiting import DEADLINE

pytestmark = pytest.mark.early

FEATURES = (
    "CREATE TABLE Features (feature1 DOUBLE, feature2 INT, feature3 DOUBLE, feature_timestamp TIMESTAMP(3)) "
    "WITH ('connector' = 'datagen'{more});"
)


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    file = tmp_path / "functions.toml"
    file.write_text(
        """
        [functions.Predict]
        model = "wine"
        arguments = ["feature1", "feature2", "feature3"]

        [functions.Predictv2]
        model = "./one.onnx"

        [functions.Versioned]
        model = "wine"
        with_model = true
        """
    )
    (tmp_path / "one.onnx").write_bytes(sum_model(1))
    return file


@pytest.fixture
def promote(minio_store_url: str) -> Callable[[int], None]:
    """Promotes a version of wine that answers `winner` to everything."""
    registry = Registry.open(minio_store_url)

    def publish(winner: int) -> None:
        data = linear_classifier(3, 3, winner=winner)
        manifest = registry.publish("wine", data, read_facts(data))
        registry.promote("wine", manifest.version)

    return publish


def test_the_example_works_as_typed_and_rows_may_say_what_the_client_says_in_any_mode_of_python(
    stack: LocalStack, minio_store_url: str, functions: Path, promote: Callable[[int], None]
) -> None:
    promote(2)
    table = FEATURES.format(more=", 'number-of-rows' = '20'")
    query = (
        "SELECT Predict(feature1, feature2, feature3) AS prediction, Predictv2(feature1) AS prediction2 "
        "FROM Features;"
    )
    # pandas functions run in processes of their own all the same
    said = (
        "SET 'python.execution-mode' = 'thread';"
        "SELECT Predict(feature1, feature2, feature3) AS prediction, "
        "CONCAT('a', CHR(10), '[ERROR] b') AS said FROM Features"
    )
    result = run_sql(stack, minio_store_url, "--functions", str(functions), "-e", f"{table} {query} {said}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Predict(feature1 DOUBLE, feature2 DOUBLE, feature3 DOUBLE)" in result.stderr
    rows = [line.split("|")[2:4] for line in result.stdout.splitlines() if line.startswith("| +I |")]
    assert [prediction.strip() for prediction, _ in rows] == ["2"] * 40
    assert all(np.isfinite(float(total)) for _, total in rows[:20]), rows
    assert result.stdout.count("\n[ERROR] b") == 20


def test_a_script_fails_by_what_the_client_says(
    stack: LocalStack, minio_store_url: str, functions: Path, promote: Callable[[int], None]
) -> None:
    promote(2)
    bad = run_sql(stack, minio_store_url, "--functions", str(functions), "-e", "SELECT * FROM Nowhere")
    assert "Object 'Nowhere' not found" in bad.stdout
    assert bad.returncode == 1


def test_mistakes_are_told_with_the_models_inputs_and_a_promotion_shows_in_a_running_query(
    stack: LocalStack, minio_store_url: str, functions: Path, promote: Callable[[int], None], tmp_path: Path
) -> None:
    promote(1)
    command, environ = sql_command(stack, minio_store_url, "--functions", str(functions))
    takes = r"Predict\(feature1 DOUBLE, feature2 DOUBLE, feature3 DOUBLE\)"
    with open_session(command, environ, tmp_path) as session:
        session.wait_for("Flink SQL> ")
        session.type("SET 'sql-client.execution.result-mode' = 'tableau';")
        session.type(FEATURES.format(more=", 'rows-per-second' = '20'"))
        session.wait_for("(?s)(succeed.*){2}")
        session.type("SELECT Predict(feature1, feature2) FROM Features;")
        session.wait_for(rf"No match found for function signature Predict(?s:.*){takes}")
        session.type("SELECT Predict(feature1, feature2, CAST(feature_timestamp AS STRING)) FROM Features;")
        session.wait_for(rf"{takes}: feature3 takes DOUBLE and was given STRING")
        session.type("SELECT Predict(1, 2, 3);")
        session.wait_for(rf"{takes} with constants alone")
        session.type(
            "SELECT prediction, COUNT(*) FROM (SELECT Predict(newest, feature2, 0.5) AS prediction FROM "
            "(SELECT feature2, MAX(feature1) AS newest FROM Features GROUP BY feature2)) GROUP BY prediction;"
        )
        session.wait_for("non-deterministic function: Predict")  # the count would go wrong at a promotion

        session.type(
            "SELECT p.prediction, p.version, p.generation FROM "
            "(SELECT Versioned(feature1, feature2, 0.5) AS p FROM Features);"
        )
        session.wait_for(r"\|\s+1 \|\s+1 \|\s+1 \|")
        promote(2)
        session.wait_for(r"\|\s+2 \|\s+2 \|\s+2 \|")
        session.press_ctrl_c()
        session.type("QUIT;")
        assert session.process.wait(DEADLINE) == 0
