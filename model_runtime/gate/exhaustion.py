"""What is said of a model that needs more memory than the gate allows."""

from __future__ import annotations

from ferryline.registry.errors import RefusedError

GATE = "memory"


def out_of_memory(detail: str) -> RefusedError:
    """The refusal of a model that needs more than it may have."""
    return RefusedError(
        GATE,
        f"it needs more memory than the gate allows: {detail}",
        "Make the model smaller, or raise FERRY_GATE_BASE_MEMORY_MIB",
    )
