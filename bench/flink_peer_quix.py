"""Quix Streams as a peer, run in an environment of its own: BROKER SOURCE SINK MODEL GROUP."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnxruntime
import orjson
from quixstreams import Application
from quixstreams.models import BytesDeserializer, BytesSerializer


def main() -> None:
    """Score one topic into another until killed."""
    broker, source, sink, model, group = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    name = session.get_inputs()[0].name
    application = Application(
        broker, consumer_group=group, auto_offset_reset="earliest", producer_extra_config={"linger.ms": 5}
    )
    records = application.topic(source, value_deserializer=BytesDeserializer())
    scored = application.topic(sink, value_serializer=BytesSerializer())

    def score(value: bytes) -> bytes:
        document: dict[str, Any] = orjson.loads(value)
        labels, scores = session.run(None, {name: np.array([document["x"]], dtype=np.float32)})
        return orjson.dumps(
            {
                "prediction": int(labels[0]),
                "scores": scores[0].tolist(),
                "event_time": document["ts"],
                "scored_at": datetime.now(UTC),
                "actual": document["actual_y"],
            }
        )

    application.dataframe(records).apply(score).to_topic(scored)
    application.run()


if __name__ == "__main__":
    main()
