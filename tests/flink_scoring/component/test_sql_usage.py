"""What is wrong with a file of SQL functions is told in one line, before any client opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.flink_scoring.sql.cli import main
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from tests.flink_scoring.commands import run_command
from tests.onnx_models import linear_classifier


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int, says: str
) -> None:
    store = (tmp_path / "registry").as_uri()
    monkeypatch.setenv("FERRY_STORE", store)
    registry, data = Registry.open(store), linear_classifier(3, 3)
    registry.promote("wine", registry.publish("wine", data, read_facts(data)).version)
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    file = tmp_path / "functions.toml"
    file.write_text(f"[functions.Predict]\n{text}\n")
    ended = run_command(main, "ferry-sql", "--functions", str(file), "--list")
    assert ended.code == code
    assert says in ended.error
