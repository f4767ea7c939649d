import contextlib
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest

from ferryline.streams.pipeline import ArrayFeatures, Pipeline, parse_pipeline
from ferryline.streams.records import DecodedBatch, RecordDecoder
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.evaluation import PrequentialWindow
from ferryline.trainer.learner import Learner
from ferryline.trainer.positions import Placement
from ferryline.trainer.progress import Progress
from ferryline.trainer.training import Training
from tests.support.pipelines import MINIMAL

BatchMaker = Callable[..., FetchedBatch]
PAIRS = parse_pipeline(MINIMAL, where="test")


def feed(training: Training, values: list[bytes], make_batch: BatchMaker, *, size: int = 100) -> None:
    start = training.progress.next.get(0, 0)
    for begin in range(0, len(values), size):
        training.step(make_batch(values[begin : begin + size], first=start + begin))


def test_it_learns_to_read_digits(
    digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker
) -> None:
    training = Training(digits)
    training.place(Placement(offsets={0: 0}))
    feed(training, digit_values * 2, make_batch)
    metrics = training.window.metrics()
    assert metrics["accuracy"] > 0.93
    assert training.progress.records == 2 * len(digit_values)
    lineage = training.progress.lineage("t")
    assert [(part.partition, part.first, part.end) for part in lineage.offsets] == [
        (0, 0, 2 * len(digit_values))
    ]
    assert lineage.newest_event_time == datetime(2026, 1, 1, tzinfo=UTC)


def test_records_are_judged_before_they_are_learnt(
    digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker
) -> None:
    training = Training(digits)
    training.step(make_batch(digit_values[:100]))
    # before anything is learnt all ten classes are equally likely, and the first is said
    truths = [orjson.loads(value)["actual_y"] for value in digit_values[:100]]
    assert training.window.metrics()["accuracy"] == pytest.approx(truths.count(0) / 100)
    assert training.window.metrics()["log_loss"] == pytest.approx(np.log(10))


def test_bad_records_are_skipped_and_counted(
    digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker
) -> None:
    bad: list[bytes | None] = [
        None,
        b"{",
        b'{"x": [1]}',
        orjson.dumps({"x": [1] * 64, "ts": 0, "actual_y": 11}),
    ]
    values = [*digit_values[:3], *bad, *digit_values[3:6]]
    training = Training(digits)
    training.place(Placement(offsets={0: 40}))
    rejections = training.step(make_batch(values, first=40))
    assert [item.index for item in rejections] == [3, 4, 5, 6]
    assert training.progress.records == 6
    assert training.progress.skipped == {
        "no_value": 1, "invalid_json": 1, "wrong_length": 1, "bad_label": 1,
    }  # fmt: skip
    assert training.progress.next == {0: 50}
    lineage = training.progress.lineage("t")
    assert lineage.records + lineage.skipped == sum(part.end - part.first for part in lineage.offsets)


def test_a_batch_of_bad_records_only_moves_on(digits: Pipeline, make_batch: BatchMaker) -> None:
    training = Training(digits)
    assert len(training.step(make_batch([b"{", None]))) == 2
    assert not training.learner.fitted
    assert (training.progress.records, training.progress.consumed, training.progress.next) == (0, 2, {0: 2})


@pytest.mark.parametrize("warm", [False, True])
def test_numbers_that_would_spoil_the_weights_are_skipped(
    digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker, warm: bool
) -> None:
    features = ArrayFeatures(field="x", kind="array", size=64)  # no bounds
    source = digits.source.model_copy(update={"features": features})
    training = Training(digits.model_copy(update={"source": source}))
    if warm:
        training.step(make_batch(digit_values[:200]))
    huge = orjson.dumps({"ts": 0, "x": [1e300] * 32 + [-1.7e308] * 32, "actual_y": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rejections = training.step(make_batch([*digit_values[:20], huge, *digit_values[20:40]], first=200))
    assert [(item.index, str(item.reason)) for item in rejections] == [(20, "unlearnable")]
    assert all(np.isfinite(values).all() for values in training.arrays().values())
    assert training.progress.records == 40 + 200 * warm
    assert np.isfinite(training.window.metrics()["log_loss"])


@pytest.mark.parametrize("name", ["digits", "phishing"])
def test_a_restored_training_goes_on_exactly_as_if_nothing_had_happened(
    name: str, request: pytest.FixtureRequest, digit_values: list[bytes], make_batch: BatchMaker
) -> None:
    pipeline: Pipeline = request.getfixturevalue(name)
    values = digit_values[:600] if name == "digits" else _phishing_values()
    through, before = Training(pipeline), Training(pipeline)
    half = 300
    for training in (through, before):
        feed(training, values[:half], make_batch, size=30)
    after = Training(pipeline)
    after.restore(before.progress.model_copy(deep=True), before.arrays())
    for training in (through, after):
        feed(training, values[half:], make_batch, size=30)
    expected, found = through.arrays(), after.arrays()
    assert expected.keys() == found.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(array, found[key], err_msg=key)
    assert through.progress.model_copy(update={"run": ""}) == after.progress.model_copy(update={"run": ""})


def require_unchanged(training: Training, before: tuple[Progress, dict[str, np.ndarray]]) -> None:
    assert training.progress == before[0]
    arrays = training.arrays()
    assert arrays.keys() == before[1].keys()
    for key, array in before[1].items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)


@pytest.mark.parametrize(
    "broken",
    [
        (RecordDecoder, "decode_batch"),
        (Learner, "probabilities"),
        (Learner, "taught"),
        (Progress, "advanced"),
        (PrequentialWindow, "scored"),
    ],
    ids=lambda broken: broken[1],
)
@pytest.mark.parametrize("error", [MemoryError(), TypeError("a bug")], ids=["machine", "ours"])
def test_a_step_that_fails_anywhere_changes_nothing(
    digits: Pipeline,
    digit_values: list[bytes],
    make_batch: BatchMaker,
    monkeypatch: pytest.MonkeyPatch,
    broken: tuple[type, str],
    error: Exception,
) -> None:
    training = Training(digits)
    training.place(Placement(offsets={0: 0}))
    training.step(make_batch(digit_values[:100]))
    before = (training.progress.model_copy(deep=True), training.arrays())

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with contextlib.suppress(type(error)):
            training.prepare(make_batch(digit_values[100:200], first=100))
    require_unchanged(training, before)


def test_preparing_changes_nothing(
    digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker
) -> None:
    training = Training(digits)
    training.place(Placement(offsets={0: 0}))
    training.step(make_batch(digit_values[:100]))
    before = (training.progress.model_copy(deep=True), training.arrays())
    step = training.prepare(make_batch([*digit_values[100:200], b"{"], first=100))
    require_unchanged(training, before)
    training.commit(step)
    assert (training.progress.records, training.progress.next) == (200, {0: 201})
    assert training.arrays()["learner.scaler.n_samples_seen_"] == 200


def test_a_record_whose_time_is_no_moment_is_rejected(make_batch: BatchMaker) -> None:
    training = Training(PAIRS)
    batch = make_batch([orjson.dumps({"x": [number, 1], "y": number % 2}) for number in range(10)])
    batch.timestamps[4] = 1_700_000_000_000_000  # a producer that sends microseconds
    batch.timestamps[6] = -(2**63)
    rejections = training.step(batch)
    assert [(item.index, str(item.reason)) for item in rejections] == [
        (4, "bad_event_time"), (6, "bad_event_time"),
    ]  # fmt: skip
    assert "1700000000000000 is no moment" in rejections[0].detail
    assert (training.progress.records, training.progress.next) == (8, {0: 10})
    assert training.arrays()["learner.scaler.n_samples_seen_"] == 8
    assert training.progress.newest_event_time == batch.timestamp(9)


def test_a_record_that_breaks_the_preparation_spoils_only_itself(
    make_batch: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = RecordDecoder.decode_batch

    def break_at_poison(self: RecordDecoder, values: Sequence[bytes | None], **options: Any) -> DecodedBatch:
        if b"poison" in values:
            raise KeyError("nobody thought of this")
        return decode(self, values, **options)

    monkeypatch.setattr(RecordDecoder, "decode_batch", break_at_poison)
    training = Training(PAIRS)
    values: list[bytes | None] = [orjson.dumps({"x": [number, 1], "y": number % 2}) for number in range(10)]
    rejections = training.step(make_batch([*values[:3], b"poison", *values[3:], b"{"]))
    assert [(item.index, str(item.reason)) for item in rejections] == [
        (3, "unlearnable"), (11, "invalid_json"),
    ]  # fmt: skip
    assert rejections[0].detail == "KeyError: 'nobody thought of this'"
    assert (training.progress.records, training.progress.next) == (10, {0: 12})


def test_a_fault_of_the_machine_is_no_fault_of_a_record(
    make_batch: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Learner, "taught", fail)
    with pytest.raises(MemoryError):
        Training(PAIRS).step(make_batch([orjson.dumps({"x": [1, 2], "y": 1})]))


def _phishing_values() -> list[bytes]:
    from river.datasets import Phishing

    return [orjson.dumps({"x": features, "y": truth}) for features, truth in Phishing()][:600]
