from collections.abc import Callable

import numpy as np
import onnx
import orjson
import pytest
from river.datasets import Phishing

from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.golden import check_golden_rows
from ferryline.model_runtime.session import Array, ExhaustedError, OnnxSession
from ferryline.registry.documents import GoldenRows, Role
from ferryline.registry.error_kinds import ErrorKind, kind_of
from ferryline.registry.errors import RefusedError
from ferryline.streams.pipeline import ArrayFeatures, LabelSpec, Pipeline
from ferryline.trainer import candidate as candidate_module
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import ExportedModel, export_candidate
from ferryline.trainer.export import export_onnx
from ferryline.trainer.parity import check_parity, golden_rows, load_session
from ferryline.trainer.positions import Placement
from ferryline.trainer.training import Training

BatchMaker = Callable[..., FetchedBatch]


@pytest.fixture(scope="module")
def trained(digits: Pipeline, digit_values: list[bytes], make_batch: BatchMaker) -> Training:
    training = Training(digits)
    training.place(Placement(offsets={0: 0}))
    for begin in range(0, 1000, 50):
        training.step(make_batch(digit_values[begin : begin + 50], first=begin))
    return training


def reexported(trained: Training, change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_model_from_string(export_candidate(trained).data)
    change(model)
    return model.SerializeToString()


def test_a_candidate_carries_its_contract_and_its_origin(trained: Training) -> None:
    exported = export_candidate(trained)
    facts, record = read_facts(exported.data), exported.training
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.inputs] == [("input", "float32", (-1, 64))]
    assert [(spec.name, spec.dtype, spec.role) for spec in facts.outputs] == [
        ("label", "int64", Role.LABEL),
        ("probabilities", "float32", Role.PROBABILITY),
    ]
    assert facts.classes == tuple(range(10))
    assert facts.opset <= trained.pipeline.export.opset
    assert record.lineage is not None
    assert (record.lineage.records, record.lineage.offsets[0].end) == (1000, 1000)
    assert record.evaluation is not None
    assert record.evaluation.metrics["accuracy"] == exported.accuracy
    assert record.evaluation.parity is not None
    assert (record.evaluation.parity.rows, record.evaluation.parity.label_mismatches) == (200, 0)
    assert record.golden is not None
    assert len(record.golden.inputs["input"]) == 16
    check_golden_rows(load_session(exported.data), facts, record.golden)
    onnx.checker.check_model(onnx.load_model_from_string(exported.data))


def test_the_same_training_gives_the_same_bytes(trained: Training) -> None:
    assert export_candidate(trained).data == export_candidate(trained).data


def test_boolean_classes_are_named_in_the_file(phishing: Pipeline, make_batch: BatchMaker) -> None:
    training = Training(phishing)
    training.place(Placement(offsets={0: 0}))
    values = [orjson.dumps({"x": features, "y": truth}) for features, truth in Phishing()]
    training.step(make_batch(values[:300]))
    exported = export_candidate(training)
    assert read_facts(exported.data).classes == (False, True)
    assert read_facts(exported.data).outputs[0].dtype == "int64"
    assert exported.training.evaluation is not None
    assert set(exported.training.evaluation.metrics) == {"accuracy", "log_loss", "roc_auc"}


def test_string_classes_come_out_as_strings(make_batch: BatchMaker, rng: np.random.Generator) -> None:
    training = _training_of(
        "[pipeline]\nname='s'\nmodel='s'\n[source]\ntopic='t'\n[source.features]\nfield='x'\nkind='array'\nsize=2\n"
        "[source.label]\nfield='y'\nclasses=['ham','spam']\n"
    )
    rows = rng.normal(size=(300, 2))
    values = [orjson.dumps({"x": row.tolist(), "y": "spam" if row.sum() > 0 else "ham"}) for row in rows]
    training.step(make_batch(values))
    exported = export_candidate(training)
    assert read_facts(exported.data).classes == ("ham", "spam")
    assert read_facts(exported.data).outputs[0].dtype == "string"
    assert exported.training.golden is not None
    assert set(exported.training.golden.outputs["label"]) <= {"ham", "spam"}


def test_offset_features_fall_back_to_float64_and_stay_there(
    make_batch: BatchMaker, rng: np.random.Generator
) -> None:
    training = _training_of(
        "[pipeline]\nname='o'\nmodel='o'\n[source]\ntopic='t'\n[source.features]\nfield='x'\nkind='array'\nsize=4\n"
        "[source.label]\nfield='y'\nclasses=[0,1]\n"
    )
    for begin in range(0, 2000, 100):
        rows = rng.normal(size=(100, 4))
        truths = (rows.sum(axis=1) > 0).astype(int)
        values = [
            orjson.dumps({"x": (row + 1e8).tolist(), "y": int(truth)})
            for row, truth in zip(rows, truths, strict=True)
        ]
        training.step(make_batch(values, first=begin))
    exported = export_candidate(training)
    assert exported.precision == "float64"
    assert read_facts(exported.data).inputs[0].dtype == "float64"
    assert exported.training.evaluation is not None
    assert exported.training.evaluation.parity is not None
    assert exported.training.evaluation.parity.dtype == "float64"
    assert exported.training.evaluation.parity.max_score_difference < 1e-6
    training.progress.precision = exported.precision
    assert export_candidate(training).precision == "float64"
    # once callers send float32, a file that is not exact in it is refused rather than changed under them
    training.progress.precision = "float32"
    with pytest.raises(RefusedError, match="float32") as caught:
        export_candidate(training)
    assert caught.value.gate == "parity"


class Undecided:
    """An estimator and a file at once, which cannot tell two classes apart and name different ones."""

    classes_ = np.array([3, 5, 8])

    def __init__(self, label: int, margin: float) -> None:
        self._label = label
        self._chances = np.array([[0.45 + margin, 0.45, 0.1 - margin]])

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self._chances

    def run(self, feeds: object, outputs: object = None) -> dict[str, np.ndarray]:
        return {"label": np.array([self._label]), "probabilities": self._chances}


@pytest.mark.parametrize(
    ("label", "margin", "mismatches"), [(5, 1e-9, 0), (3, 1e-2, 0), (5, 1e-2, 1), (8, 1e-9, 1), (4, 1e-9, 1)]
)
def test_a_tie_may_go_either_way_and_nothing_else_may(label: int, margin: float, mismatches: int) -> None:
    both = Undecided(label, margin)

    def check() -> int:
        report = check_parity(both, both, np.zeros((1, 4)), precision="float32", tolerance=1e-4)  # type: ignore[arg-type]
        return report.label_mismatches

    if mismatches:
        with pytest.raises(RefusedError, match="1 of 1 labels are not the estimator's"):
            check()
    else:
        assert check() == 0


def _multiply_weights(model: onnx.ModelProto, factor: float) -> None:
    """Of the folded form or of the plain one."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coefficients":
                attribute.floats[:] = [value * factor for value in attribute.floats]
                return
    weights = next(item for item in model.graph.initializer if len(item.dims) == 2)
    values = onnx.numpy_helper.to_array(weights) * factor
    dtype = onnx.helper.tensor_dtype_to_np_dtype(weights.data_type)
    weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(dtype), weights.name))


def _scale_weights(model: onnx.ModelProto) -> None:
    _multiply_weights(model, 1.5)


def _poison_weights(model: onnx.ModelProto) -> None:
    _multiply_weights(model, np.nan)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_scale_weights, "labels are not|probability is off"), (_poison_weights, "no finite numbers")],
)
def test_the_parity_gate_refuses_a_file_that_says_something_else(
    trained: Training, spoil: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    session = load_session(reexported(trained, spoil))
    rows = trained.recent.newest(200)
    with pytest.raises(RefusedError, match=reason) as caught:
        check_parity(session, trained.learner.estimator, rows, precision="float32", tolerance=1e-4)
    assert caught.value.gate == "parity"


def test_a_corrupted_export_is_never_a_candidate(trained: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(*arguments: object, **options: object) -> bytes:
        model = onnx.load_model_from_string(export_onnx(*arguments, **options))  # type: ignore[arg-type]
        _multiply_weights(model, -1.0)
        return model.SerializeToString()

    monkeypatch.setattr(candidate_module, "export_onnx", corrupt)
    with pytest.raises(RefusedError) as caught:
        export_candidate(trained)
    assert caught.value.gate == "parity"
    assert "float64" in caught.value.reason


def test_memory_that_runs_out_at_the_parity_gate_chooses_no_other_precision(
    trained: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxSession.run

    def sometimes(session: OnnxSession, feeds: dict[str, Array], outputs: list[str]) -> object:
        if feeds["input"].dtype == np.float32:
            session._run = _without_memory
        return run(session, feeds, outputs)

    monkeypatch.setattr(OnnxSession, "run", sometimes)
    with pytest.raises(ExhaustedError, match="MemoryError"):
        export_candidate(trained)


def _without_memory(*_: object) -> None:
    raise MemoryError


def test_a_tolerance_of_nothing_is_not_met(trained: Training) -> None:
    exported: ExportedModel = export_candidate(trained)
    with pytest.raises(RefusedError, match="is allowed"):
        check_parity(
            load_session(exported.data),
            trained.learner.estimator,
            trained.recent.newest(),
            precision="float32",
            tolerance=1e-300,
        )


def test_a_golden_row_has_no_infinity(make_batch: BatchMaker, rng: np.random.Generator) -> None:
    training = _training_of(
        "[pipeline]\nname='p'\nmodel='p'\n[source]\ntopic='t'\n[source.features]\nfield='x'\nkind='array'\nsize=2\n"
        "[source.label]\nfield='y'\nclasses=[0,1]\n"
    )
    rows = rng.normal(size=(300, 2))
    training.step(make_batch([orjson.dumps({"x": row.tolist(), "y": int(row[0] > 0)}) for row in rows]))
    session = load_session(export_candidate(training).data)
    rows[-3, 0] = 1e39  # finite, but not in float32, where the file is sure of the class all the same
    golden = golden_rows(session, rows, precision="float32", tolerance=1e-4)
    assert len(golden.inputs["input"]) == 16
    assert np.isfinite(golden.inputs["input"]).all()
    assert GoldenRows.model_validate_json(golden.model_dump_json()) == golden


def test_where_no_row_is_finite_the_reason_is_told(trained: Training) -> None:
    session = load_session(export_candidate(trained).data)
    rows = np.full((4, 64), -1e39)
    with pytest.raises(RefusedError, match=r"infinite in float32.*minimum and a maximum") as caught:
        golden_rows(session, rows, precision="float32", tolerance=1e-4)
    assert caught.value.gate == "parity"


def test_want_of_memory_says_nothing_about_a_conversion(
    trained: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("std::bad_alloc")

    monkeypatch.setattr("ferryline.trainer.export.convert_sklearn", fail)
    with pytest.raises(ValueError, match="bad_alloc") as raised:
        export_candidate(trained)
    assert kind_of(raised.value) is ErrorKind.TRANSIENT


def test_an_opset_that_skl2onnx_does_not_know_is_refused(trained: Training) -> None:
    # as 22 is for skl2onnx 1.19
    export = trained.pipeline.export.model_copy(update={"opset": 99})
    strange = Training(trained.pipeline.model_copy(update={"export": export}))
    strange.restore(trained.progress, trained.arrays())
    with pytest.raises(RefusedError, match="opset") as caught:
        export_candidate(strange)
    assert caught.value.gate == "export"


def _training_of(text: str) -> Training:
    from ferryline.streams.pipeline import parse_pipeline

    pipeline = parse_pipeline(text, where="test")
    assert isinstance(pipeline.source.features, ArrayFeatures)
    assert isinstance(pipeline.source.label, LabelSpec)
    training = Training(pipeline)
    training.place(Placement(offsets={0: 0}))
    return training
