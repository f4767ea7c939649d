from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.flink_scoring.sql.config import functions_file, load_functions, parse_functions
from ferryline.flink_scoring.sql.naming import (
    ChannelName,
    FileName,
    ObjectName,
    VersionName,
    parse_model_name,
)
from ferryline.registry.errors import UsageError

HERE = Path("/data/sql")


def complaint(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_functions(text, where="functions.toml")
    return str(caught.value)


def function(*lines: str) -> str:
    return "\n".join(['[functions.Predict]\nmodel = "wine"', *lines])


def test_a_model_is_a_channel_a_version_a_file_or_an_object() -> None:
    def named(text: str) -> object:
        return parse_model_name(text, HERE)

    assert named("wine") == ChannelName("wine", "production")
    assert named("wine:staging") == ChannelName("wine", "staging")
    assert named("wine@7") == VersionName("wine", 7)
    assert named("./wine.onnx") == named("wine.onnx") == FileName(HERE / "wine.onnx")
    assert named("file:///models/a%20b.onnx") == FileName(Path("/models/a b.onnx"))
    found = named("s3://models/deep/wine.onnx?endpoint=http://127.0.0.1:9000")
    assert found == ObjectName("s3://models/deep?endpoint=http://127.0.0.1:9000", "wine.onnx")
    assert str(found) == "s3://models/deep/wine.onnx?endpoint=http://127.0.0.1:9000"
    assert named("s3://models/wine.onnx") == ObjectName("s3://models", "wine.onnx")


@pytest.mark.parametrize(
    "text", ["Wine", "wine@0", "wine:a:b", "http://host/wine.onnx", "s3://wine.onnx", ""]
)
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="a function's model is MODEL, MODEL:CHANNEL"):
        parse_model_name(text, HERE)


def test_paths_begin_where_the_file_lies(tmp_path: Path) -> None:
    file = tmp_path / "functions.toml"
    file.write_text('[functions.Predict]\nmodel = "./models/wine.onnx"')
    assert load_functions(file).reference("Predict") == FileName(tmp_path / "models" / "wine.onnx")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "functions is missing; add it"),
        ("[functions]", "functions: dictionary should have at least 1 item"),
        ("[functions.Predict]", "functions.Predict.model is missing; add it"),
        ("[functions.Predict", "is not TOML"),
        (function('modle = "x"'), "functions.Predict.modle is not a key of this table"),
        ('[functions.Predict]\nmodel = "Wine"', "'Wine' cannot name a model"),
        ('[functions."2nd"]\nmodel = "wine"', "functions.2nd"),
        (function('arguments = ["a b"]'), "functions.Predict.arguments.0: string should match pattern"),
        (function('arguments = ["a", "a"]'), "an argument is named 'a' twice"),
        (function('returns = ["label", "label"]'), "an output is named 'label' twice"),
        (function('on_error = "skip"'), "functions.Predict.on_error: input should be 'null' or 'fail'"),
        (function("[functions.PREDICT]", 'model = "wine"'), "named 'predict' twice"),
    ],
)
def test_a_wrong_file_is_told_in_one_line_that_names_file_and_key(text: str, says: str) -> None:
    found = complaint(text)
    assert says in found
    assert found.startswith("functions.toml")
    assert "\n" not in found


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="No such file or directory; name a file of functions"):
        load_functions(tmp_path / "none.toml")
    monkeypatch.delenv("FERRY_SQL_FUNCTIONS", raising=False)
    with pytest.raises(UsageError, match="name one with --functions or FERRY_SQL_FUNCTIONS"):
        functions_file()
    monkeypatch.setenv("FERRY_SQL_FUNCTIONS", "/some/file.toml")
    assert functions_file() == Path("/some/file.toml")
    assert functions_file(HERE) == HERE
