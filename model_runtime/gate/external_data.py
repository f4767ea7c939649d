"""A model is one file: a tensor that lies in another one is refused, wherever in the model it hides.

A path in a model once read any file of the machine that loaded it (CVE-2022-25882, CVE-2024-27318,
CVE-2026-27489, -34446, -34447), and its attributes could be injected (GHSA-538c-55jv-c5g9).
"""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from ferryline.model_runtime.gate.inventory import tensors
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.registry.errors import RefusedError

GATE = "external-data"


def check_external_data(model: ModelProto, _: GateLimits) -> None:
    """Every tensor lies in the file itself.

    Raises:
        RefusedError: one does not.
    """
    for where, tensor in tensors(model):
        if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
            raise RefusedError(
                GATE,
                f"{where} lies outside of the file",
                "Save the model with save_as_external_data=False",
            )
