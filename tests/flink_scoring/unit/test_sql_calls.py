from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto

from ferryline.flink_scoring.sql.calls import Caller, UnscorableRowError
from ferryline.flink_scoring.sql.columns import read_columns
from ferryline.flink_scoring.sql.config import FunctionsConfig, load_functions
from ferryline.flink_scoring.sql.contracts import LARGEST_SHIPPED, plan_one
from ferryline.flink_scoring.sql.models import open_models
from ferryline.flink_scoring.sql.sources import FileSource, FollowedSource
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from ferryline.registry.errors import NotFoundError, RefusedError
from tests.flink_scoring.sql_models import columns_model, sum_model
from tests.support.waiting import wait_for

ONE = pd.Series([1.0, 2.0])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("FERRY_CACHE", str(tmp_path / "cache"))
    url = (tmp_path / "registry").as_uri()
    monkeypatch.setenv("FERRY_STORE", url)
    return Registry.open(url)


@pytest.fixture
def functions(tmp_path: Path) -> Callable[..., FunctionsConfig]:
    """The file with one function Predict that says these lines."""

    def write(*lines: str) -> FunctionsConfig:
        file = tmp_path / "functions.toml"
        file.write_text("\n".join(["[functions.Predict]", *lines]))
        return load_functions(file)

    return write


def publish(
    registry: Registry, data: bytes, *, canary: float | None = None, allow_contract_change: bool = False
) -> None:
    manifest = registry.publish("wine", data, read_facts(data))
    registry.promote("wine", manifest.version, canary=canary, allow_contract_change=allow_contract_change)


@contextmanager
def opened(config: FunctionsConfig) -> Iterator[Caller]:
    planned = plan_one(config, "Predict")
    caller = Caller(planned, open_models(planned))
    try:
        yield caller
    finally:
        caller.models.close()


def test_a_channel_is_followed_and_its_answers_are_in_one_heartbeat(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    publish(store, sum_model(1))
    with opened(functions('model = "wine"', "with_model = true")) as caller:
        frame = caller.call([ONE]).result
        assert frame.to_dict("list") == {
            "prediction": [1.0, 2.0], "version": [1, 1], "generation": [1, 1]
        }  # fmt: skip
        publish(store, sum_model(1, factor=10))
        wait_for(lambda: caller.call([ONE]).newest.version == 2, "the swap")
        assert caller.call([ONE]).result["prediction"].tolist() == [10.0, 20.0]
        wait_for(lambda: [beat.models[0].version for beat in store.consumers.all()] == [2], "the heartbeat")
        reports = [report for beat in store.consumers.all() for report in beat.models]
        assert [report.channel for report in reports] == ["production"]
    assert list(store.consumers.all()) == []


def test_two_functions_of_one_process_are_in_one_heartbeat(store: Registry, tmp_path: Path) -> None:
    publish(store, sum_model(1))
    file = tmp_path / "two.toml"
    file.write_text('[functions.A]\nmodel="wine"\n[functions.B]\nmodel="wine"\nwith_model=true')
    planned = [plan_one(load_functions(file), name) for name in ("A", "B")]
    first, second = [open_models(each) for each in planned]

    def reported() -> list[int]:
        return [len(beat.models) for beat in store.consumers.all()]

    wait_for(lambda: reported() == [2], "both in the heartbeat")
    first.close()
    wait_for(lambda: reported() == [1], "one left")
    second.close()
    assert reported() == []


def test_a_promoted_model_of_another_shape_is_refused_and_the_last_good_one_goes_on(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    publish(store, sum_model(1))
    with opened(functions('model = "wine"')) as caller:
        assert caller.call([ONE]).newest.version == 1
        publish(store, sum_model(2), allow_contract_change=True)
        wait_for(lambda: store.refusals("wine").newest(5), "the refusal")
        assert caller.call([ONE]).newest.version == 1
        refusal, *_ = store.refusals("wine").newest(5)
        assert refusal.gate == "contract"
        assert "queries were planned with Predict(x DOUBLE)" in refusal.reason


def test_a_canary_gets_its_share_and_always_the_same_rows(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    publish(store, sum_model(1))
    publish(store, sum_model(1, factor=-1), canary=30)
    rows = pd.Series(np.arange(1.0, 501.0))
    with opened(functions('model = "wine"', "with_model = true")) as caller:
        first = caller.call([rows]).result
        again = caller.call([rows[::-1].reset_index(drop=True)]).result
    by_canary = first["version"] == 2
    assert 0.2 < by_canary.mean() < 0.4
    assert (np.sign(first["prediction"].astype(float)) == np.where(by_canary, -1, 1)).all()
    assert again["version"].tolist() == first["version"].tolist()[::-1]


def numbered(values: list[float]) -> pd.Series:
    return pd.Series([np.nan if number % 7 == 0 else value for number, value in enumerate(values)])


def holed(values: list[object]) -> pd.Series:
    return pd.Series([None if number % 5 == 0 else value for number, value in enumerate(values)])


def copied(data: bytes) -> bytes:
    """Another file that answers the same."""
    model = onnx.load_from_string(data)
    model.producer_name = "copy"
    return bytes(model.SerializeToString())


WHOLE = [float(number) for number in range(40)]
BESIDE_NULLS = {
    "whole numbers": (
        sum_model(3, dtype=TensorProto.INT64),
        (),
        [numbered(WHOLE), numbered(WHOLE[::-1]), pd.Series(range(40))],
        {"x_0 is NULL": 6},
    ),
    "whole numbers that are inexact": (
        sum_model(1, dtype=TensorProto.INT64),
        (),
        [numbered([2.0**60, *WHOLE[1:39], 2.0**60])],
        {"x is NULL": 6, "x is beyond 2^53 and came beside a NULL, which makes it inexact": 1},
    ),
    "texts and booleans": (
        columns_model(),
        ('returns = ["price", "where", "both"]',),
        [pd.Series(WHOLE), numbered(WHOLE), holed(["Ulm", "Bonn"] * 20), holed([True, False] * 20)],
        {"visits is NULL": 6, "town is NULL": 6},
    ),
    "arrays": (
        sum_model(3),
        ('shape = "array"',),
        [holed([np.full(3, number) for number in WHOLE])],
        {"x is NULL": 8},
    ),
}


@pytest.mark.parametrize("kind", BESIDE_NULLS)
def test_nulls_are_refused_under_a_canary_as_without_one(
    kind: str, store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    data, lines, given, reasons = BESIDE_NULLS[kind]
    config = functions('model = "wine"', *lines)
    publish(store, data)
    with opened(config) as caller:
        alone = caller.call(given)
    publish(store, copied(data), canary=50)
    with opened(config) as caller:
        shared = caller.call(given)
        assert len(list(caller.models.shares(read_columns(caller.planned.signature.arguments, given)))) == 2
    for reason, rows in reasons.items():
        assert alone.reasons[reason] == rows
    assert (shared.scored, shared.reasons) == (alone.scored, alone.reasons)
    assert str(pd.DataFrame(shared.result).to_dict("list")) == str(pd.DataFrame(alone.result).to_dict("list"))
    failing = functions('model = "wine"', *lines, 'on_error = "fail"')
    with opened(failing) as caller, pytest.raises(UnscorableRowError):
        caller.call(given)


def test_a_version_stays_whatever_is_promoted(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    publish(store, sum_model(1))
    publish(store, sum_model(1, factor=2))
    with opened(functions('model = "wine@1"', "with_model = true")) as caller:
        frame = caller.call([ONE]).result
        assert frame["prediction"].tolist() == [1.0, 2.0]
        assert frame["version"].tolist() == [1, 1]
        assert frame["generation"].isna().all()


def test_a_small_file_travels_and_another_is_read_where_the_worker_runs(
    store: Registry,
    functions: Callable[..., FunctionsConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "wine.onnx").write_bytes(sum_model(1, factor=3))
    config = functions('model = "./wine.onnx"')
    travelling = plan_one(config, "Predict")
    monkeypatch.setattr("ferryline.flink_scoring.sql.contracts.LARGEST_SHIPPED", 10)
    staying = plan_one(config, "Predict")
    assert isinstance(travelling.source, FileSource)
    assert isinstance(staying.source, FileSource)
    assert len(travelling.source.data or b"") < LARGEST_SHIPPED
    assert staying.source.data is None
    (tmp_path / "wine.onnx").write_bytes(sum_model(1, factor=4))
    assert Caller(travelling, open_models(travelling)).call([ONE]).result.tolist() == [3.0, 6.0]
    # what one function of the process has loaded, the other shares: forget it
    monkeypatch.setattr("ferryline.flink_scoring.sql.models._loaded", {})
    with pytest.raises(RefusedError, match="another file than the one that the query was planned with"):
        open_models(staying)


def test_a_file_that_is_not_there_is_named(
    store: Registry, functions: Callable[..., FunctionsConfig], tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file .*none\.onnx"):
        plan_one(functions('model = "./none.onnx"'), "Predict")


def test_rows_that_cannot_be_scored_are_null_or_end_the_query(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    publish(store, sum_model(1))
    holes = pd.Series([1.0, np.nan, 3.0])
    with opened(functions('model = "wine"')) as caller:
        outcome = caller.call([holes])
        assert outcome.result.tolist() == [1.0, None, 3.0]
        assert (outcome.scored, dict(outcome.reasons)) == (2, {"x is NULL or NaN": 1})
    with (
        opened(functions('model = "wine"', 'on_error = "fail"')) as caller,
        pytest.raises(UnscorableRowError, match="Predict: 1 of 3 rows cannot be scored; 1 because x is NULL"),
    ):
        caller.call([holes])
    with opened(functions('model = "wine"', 'nulls = "nan"')) as caller:
        assert caller.call([holes]).scored == 3


def test_only_what_stays_is_deterministic(store: Registry, functions: Callable[..., FunctionsConfig]) -> None:
    publish(store, sum_model(1))
    followed = plan_one(functions('model = "wine"'), "Predict")
    assert isinstance(followed.source, FollowedSource)
    assert not followed.is_deterministic
    assert plan_one(functions('model = "wine@1"'), "Predict").is_deterministic


def test_a_model_that_is_not_there_is_named_when_the_query_is_planned(
    store: Registry, functions: Callable[..., FunctionsConfig]
) -> None:
    with pytest.raises(NotFoundError, match="wine:production has no entry yet"):
        plan_one(functions('model = "wine"'), "Predict")
    with pytest.raises(NotFoundError, match="no model wine"):
        plan_one(functions('model = "wine@3"'), "Predict")
