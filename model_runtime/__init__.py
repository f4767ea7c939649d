"""An ONNX file made safe and fast to serve: load gate, session, and the follower that swaps it."""

import os

# before anything imports ONNX Runtime: since 1.29 it starts a thread that reports on models to its makers
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
