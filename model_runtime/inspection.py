"""What the catalogue calls before a model is published: the whole load gate, and the facts of the file.

Registered under the entry-point group `ferryline.inspectors`; see `ferryline.registry.inspection`.
"""

from __future__ import annotations

from ferryline.model_runtime.gate import Gate
from ferryline.model_runtime.gate.settings import load_gate_limits
from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.extras import Extra, require_extra
from ferryline.registry.systems import require_linux


def inspect_model(data: bytes, golden: GoldenRows | None = None) -> ModelFacts:
    """Admit a model file under the limits in force.

    Args:
        data: the file; nothing but a helper process ever parses it.
        golden: rows that the file must give the outputs of; None to run it on zeros.

    Raises:
        RefusedError: a gate refuses it.
        GateUnavailableError: it could not be judged.
        UsageError: a setting of the gate is wrong, the extra that it needs is missing, or this is not Linux.
    """
    require_linux("judging a model")
    require_extra(Extra.RUNTIME, "judging a model")
    return Gate(load_gate_limits()).admit(data, golden)
