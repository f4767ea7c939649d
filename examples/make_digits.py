"""A digits classifier as an ONNX file, for a registry that has none yet: `make_digits.py digits.onnx`."""

import sys
from pathlib import Path

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rows, labels = load_digits(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(rows, labels)
exported = convert_sklearn(
    pipeline,
    initial_types=[("input", FloatTensorType([None, 64]))],
    options={"zipmap": False},  # probabilities as a tensor: a map is none, and cannot be served
    target_opset={"": 17, "ai.onnx.ml": 3},
)
Path(sys.argv[1]).write_bytes(exported.SerializeToString())
