"""A version ready to be published: exported, compared with the estimator, and described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from sklearn.base import ClassifierMixin
from sklearn.pipeline import Pipeline as SklearnPipeline

from ferryline.registry.documents import Evaluation, TrainingRecord
from ferryline.registry.errors import RefusedError
from ferryline.trainer.export import Precision, export_onnx
from ferryline.trainer.folded import fold
from ferryline.trainer.learner import ESTIMATOR, FRAMEWORK
from ferryline.trainer.parity import GATE, check_parity, golden_rows, load_session
from ferryline.trainer.training import Training

RUN_LABEL = "ferry.trainer.run"
EXPORT_LABEL = "ferry.trainer.export"
PIPELINE_LABEL = "ferry.pipeline"


Form = Callable[[SklearnPipeline], ClassifierMixin]

# the folded form is the fast one, and it computes in float32; whichever comes first at parity is taken
_FORMS: dict[Precision, tuple[Form, ...]] = {
    "float32": (fold, lambda estimator: estimator),
    "float64": (lambda estimator: estimator,),
}


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An ONNX file that passed the parity gate, and everything its manifest will say."""

    data: bytes
    training: TrainingRecord
    records: int
    accuracy: float | None
    precision: Precision

    @property
    def export_id(self) -> str:
        """Unique to this export: the run, and how much it had learnt."""
        return self.training.labels[EXPORT_LABEL]


def export_candidate(training: Training) -> ExportedModel:
    """Export what `training` has learnt.

    The first version chooses the precision: float32, or float64 where that is not exact enough, as with
    features of large offset. Later ones keep it: callers send inputs of one type, and a version that wants
    another would be refused wherever the first one serves. In float32 the folded form is tried first.

    Raises:
        RefusedError: the file does not say what the estimator says, in the precision chosen or in any.
    """
    chosen = training.progress.precision
    precisions: tuple[Precision, ...] = (chosen,) if chosen else get_args(Precision)
    tried = [(precision, form) for precision in precisions for form in _FORMS[precision]]
    for precision, form in tried[:-1]:
        try:
            return _export(training, precision, form)
        except RefusedError as error:
            if error.gate != GATE:
                raise
    return _export(training, *tried[-1])


def _export(training: Training, precision: Precision, form: Form) -> ExportedModel:
    pipeline, progress = training.pipeline, training.progress
    spec, source = pipeline.export, pipeline.source
    rows = training.recent.newest(spec.parity_rows)
    estimator = training.learner.estimator
    data = export_onnx(
        form(estimator),
        width=source.features.width,
        classes=source.label.classes,
        opset=spec.opset,
        precision=precision,
    )
    session = load_session(data)
    parity = check_parity(session, estimator, rows, precision=precision, tolerance=spec.parity_tolerance)
    metrics = training.window.metrics()
    record = TrainingRecord(
        framework=FRAMEWORK,
        estimator=ESTIMATOR,
        lineage=progress.lineage(source.topic),
        evaluation=Evaluation(metrics=metrics, window=len(training.window), parity=parity),
        golden=golden_rows(session, rows, precision=precision, tolerance=spec.parity_tolerance),
        labels={
            PIPELINE_LABEL: pipeline.name,
            RUN_LABEL: progress.run,
            EXPORT_LABEL: f"{progress.run}-{progress.records}",
        },
    )
    return ExportedModel(data, record, progress.records, metrics.get("accuracy"), precision)
