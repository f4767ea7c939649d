"""The trainer's step beside a bare `partial_fit` loop, and an export beside the bare conversion.

The limit of training is scikit-learn itself: the same micro-batches, decoded beforehand, through
`StandardScaler.partial_fit`, `transform` and `SGDClassifier.partial_fit`. Ours decodes JSON, predicts, scores
and learns. The limit of an export is `skl2onnx.to_onnx`; ours adds the parity check, the golden rows and what
the manifest says of the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import orjson
from skl2onnx import to_onnx
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from bench.measure import alternate, compare, parse_arguments, report
from ferryline.deploy.demo.cli import PIPELINES
from ferryline.deploy.feed.datasets import DatasetName, load_dataset
from ferryline.registry.documents import utc_now
from ferryline.streams.pipeline import load_pipeline
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import export_candidate
from ferryline.trainer.positions import Placement
from ferryline.trainer.training import Training

PIPELINE = load_pipeline(PIPELINES / "digits.toml")
BATCH = PIPELINE.learner.batch_records


def batches(records: int) -> list[FetchedBatch]:
    """`records` digits as they come from Kafka, in micro-batches."""
    data, now = load_dataset(DatasetName.DIGITS), utc_now()
    values = [orjson.dumps(data.record(index % len(data.samples), now)) for index in range(records)]
    return [
        FetchedBatch(
            values=list(values[start : start + BATCH]),
            partitions=[0] * BATCH,
            offsets=list(range(start, start + BATCH)),
            timestamps=[int(now.timestamp() * 1000)] * BATCH,
            next_offsets={0: start + BATCH},
        )
        for start in range(0, records, BATCH)
    ]


def rate(records: int, work: Callable[[], object]) -> float:
    """Records per second of `work`."""
    begun = time.perf_counter()
    work()
    return records / (time.perf_counter() - begun)


def train_all(fetched: list[FetchedBatch]) -> Training:
    """Our way."""
    training = Training(PIPELINE)
    training.place(Placement(offsets={0: 0}))
    for batch in fetched:
        assert not training.step(batch)
    return training


def partial_fit_all(decoded: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The bare loop."""
    scaler, classifier = StandardScaler(), SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0)
    classes = np.arange(10)
    for rows, labels in decoded:
        scaler.partial_fit(rows)
        classifier.partial_fit(scaler.transform(rows), labels, classes=classes)


def main() -> None:
    """Print both comparisons."""
    arguments = parse_arguments(__doc__)
    records, rounds = (4_000, 3) if arguments.quick else (20_000, 9)
    fetched = batches(records)
    documents = [[orjson.loads(value or b"") for value in batch.values] for batch in fetched]
    decoded = [
        (
            np.array([document["x"] for document in batch], dtype=np.float64),
            np.array([document["actual_y"] for document in batch]),
        )
        for batch in documents
    ]
    learning = compare(
        "training, digits JSON",
        "records/s",
        "partial_fit alone",
        alternate(
            lambda: rate(records, lambda: train_all(fetched)),
            lambda: rate(records, lambda: partial_fit_all(decoded)),
            rounds=rounds,
        ),
    )
    training = train_all(fetched)
    estimator, sample = training.learner.estimator, decoded[0][0][:1].astype(np.float32)
    options = {id(estimator): {"zipmap": False}}
    exporting = compare(
        "export of a version",
        "exports/s",
        "to_onnx alone",
        alternate(
            lambda: rate(10, lambda: [export_candidate(training) for _ in range(10)]),
            lambda: rate(
                10,
                lambda: [
                    to_onnx(estimator, sample, options=options, target_opset=PIPELINE.export.opset)
                    for _ in range(10)
                ],
            ),
            rounds=rounds,
        ),
    )
    report([learning, exporting], arguments)


if __name__ == "__main__":
    main()
