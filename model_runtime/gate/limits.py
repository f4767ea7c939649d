"""What the gate allows a model to hold and to use; the same at publish and at every consumer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson

from ferryline.registry.digests import digest_of

MIB = 2**20
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Limits and policy of the load gate.

    Args:
        max_bytes: of the file. Protobuf itself ends at 2 GiB.
        wall_seconds: for the whole judgement, by the clock.
        cpu_seconds: for the whole judgement, by the processor.
        base_memory_bytes: address space that any model may take beyond the idle helper's.
        memory_per_byte: further address space, as a multiple of the file's size: it is read, parsed, checked
            and loaded, each of which makes a copy.
        max_tensor_bytes: of any tensor that is declared, or made out of constants, rather than stored.
        max_nodes: of all graphs together, calls of functions expanded.
        max_depth: of graphs inside graphs, and of functions that call functions.
        allow_control_flow: If, Loop, Scan, SequenceMap and whatever else holds a graph.
        allow_functions: functions that the model defines itself.
        allow_sparse: sparse tensors.
        domains: of operators.
        full_check: run ONNX's own checker with strict shape inference.
    """

    max_bytes: int = 2**31 - 16 * MIB
    wall_seconds: float = 60.0
    cpu_seconds: float = 60.0
    base_memory_bytes: int = 512 * MIB
    memory_per_byte: float = 8.0
    max_tensor_bytes: int = 256 * MIB
    max_nodes: int = 100_000
    max_depth: int = 16
    allow_control_flow: bool = False
    allow_functions: bool = False
    allow_sparse: bool = False
    domains: tuple[str, ...] = STANDARD_DOMAINS
    full_check: bool = True

    def memory_bytes(self, size: int) -> int:
        """Address space for the judgement of a file of `size` bytes, beyond the idle helper's."""
        return self.base_memory_bytes + int(self.memory_per_byte * size)

    def encode(self) -> bytes:
        """The limits as JSON, always in the same order."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> Self:
        """The limits from their JSON object."""
        return cls(**{**fields, "domains": tuple(fields["domains"])})

    @property
    def digest(self) -> str:
        """Equal for equal policies: a verdict holds for the policy it was found under."""
        return digest_of(self.encode())
