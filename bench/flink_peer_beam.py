"""Beam's RunInference as a peer: MODEL VALUES COUNT; prints the seconds that COUNT records took.

VALUES holds one JSON record a line; they repeat. Records are decoded, scored in batches and encoded, as the
others do it, and counted instead of written.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy
from apache_beam.options.pipeline_options import PipelineOptions

BATCH = 1000


def main() -> None:
    """Run the pipeline once and print how long it took."""
    model, values, count = sys.argv[1], Path(sys.argv[2]).read_bytes().splitlines(), int(sys.argv[3])
    handler: Any = OnnxModelHandlerNumpy(
        model, providers=["CPUExecutionProvider"], min_batch_size=BATCH, max_batch_size=BATCH
    )
    began = time.perf_counter()
    with beam.Pipeline(options=PipelineOptions(["--direct_num_workers=1"])) as pipeline:
        _ = (
            pipeline
            | beam.Create([count])
            | beam.FlatMap(repeated, values)
            | beam.Map(decoded)
            | RunInference(KeyedModelHandler(handler))
            | beam.Map(encoded)
            | beam.combiners.Count.Globally()
            | beam.Map(lambda found: _require(found, count))
        )
    print(time.perf_counter() - began)


def repeated(count: int, values: list[bytes]) -> Iterator[bytes]:
    """`count` records."""
    return itertools.islice(itertools.cycle(values), count)


def decoded(value: bytes) -> tuple[tuple[str, int], np.ndarray[Any, Any]]:
    """What travels with a record, and its row."""
    document = orjson.loads(value)
    return (document["ts"], document["actual_y"]), np.array(document["x"], dtype=np.float32)


def encoded(answer: tuple[tuple[str, int], PredictionResult]) -> bytes:
    """The scored record."""
    (event_time, actual), result = answer
    return orjson.dumps({"prediction": int(result.inference), "event_time": event_time, "actual": actual})


def _require(found: int, count: int) -> None:
    assert found == count


if __name__ == "__main__":
    main()
