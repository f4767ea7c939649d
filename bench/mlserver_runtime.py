"""The model in an ONNX file as an MLServer runtime: what a team writes that serves ONNX there.

Runs in an environment of its own (see `bench.peers`), where nothing of this project is installed. One session
with one thread and no spinning, as ours.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]  # of another environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]  # likewise
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]  # likewise


class OnnxModel(MLModel):  # type: ignore[misc]  # its base is of another environment
    """Answers with all outputs."""

    async def load(self) -> bool:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it on one request."""
        feeds = {
            tensor.name: np.asarray(NumpyCodec.decode_input(tensor), np.float32) for tensor in payload.inputs
        }
        results = self._session.run(self._outputs, feeds)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output(name, result)
                for name, result in zip(self._outputs, results, strict=True)
            ],
        )
