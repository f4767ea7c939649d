"""How want of memory shows itself, and what is said of it."""

from __future__ import annotations

from ferryline.registry.errors import RefusedError

GATE = "memory"

_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "memoryerror",
    "out of memory",
    "cannot allocate",
)


def is_exhaustion(text: str) -> bool:
    """Whether an error's text, or what a process left on standard error, tells that memory ran out."""
    lower = text.lower()
    return any(sign in lower for sign in _SIGNS)


def out_of_memory(detail: str) -> RefusedError:
    """The refusal of a model that needs more than it may have."""
    return RefusedError(
        GATE,
        f"it needs more memory than the gate allows: {detail}",
        "Make the model smaller, or raise FERRY_GATE_BASE_MEMORY_MIB",
    )
