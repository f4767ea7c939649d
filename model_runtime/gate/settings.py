"""The gate's settings: `FERRY_GATE_*` variables, then the config file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ferryline.model_runtime.gate.limits import MIB, STANDARD_DOMAINS, GateLimits
from ferryline.registry.settings import Settings, load_settings_of

_DEFAULT = GateLimits()


class GateSettings(Settings):
    """What an operator may change about the gate; docs/load-gate.md says when to."""

    gate_max_file_mib: int = Field(default=_DEFAULT.max_bytes // MIB, ge=1, le=_DEFAULT.max_bytes // MIB)
    gate_wall_seconds: float = Field(default=_DEFAULT.wall_seconds, gt=0)
    gate_cpu_seconds: float = Field(default=_DEFAULT.cpu_seconds, gt=0)
    gate_base_memory_mib: int = Field(default=_DEFAULT.base_memory_bytes // MIB, ge=64)
    gate_memory_per_byte: float = Field(default=_DEFAULT.memory_per_byte, ge=1)
    gate_max_tensor_mib: int = Field(default=_DEFAULT.max_tensor_bytes // MIB, ge=1)
    gate_max_nodes: int = Field(default=_DEFAULT.max_nodes, ge=1)
    gate_max_depth: int = Field(default=_DEFAULT.max_depth, ge=1)
    gate_allow_control_flow: bool = False
    gate_allow_functions: bool = False
    gate_allow_sparse: bool = False
    gate_extra_domains: Annotated[tuple[str, ...], NoDecode] = ()
    gate_full_check: bool = True

    @field_validator("gate_extra_domains", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        # in the environment the names stand behind each other, as people write them
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    def limits(self) -> GateLimits:
        """The limits that these settings say."""
        return GateLimits(
            max_bytes=self.gate_max_file_mib * MIB,
            wall_seconds=self.gate_wall_seconds,
            cpu_seconds=self.gate_cpu_seconds,
            base_memory_bytes=self.gate_base_memory_mib * MIB,
            memory_per_byte=self.gate_memory_per_byte,
            max_tensor_bytes=self.gate_max_tensor_mib * MIB,
            max_nodes=self.gate_max_nodes,
            max_depth=self.gate_max_depth,
            allow_control_flow=self.gate_allow_control_flow,
            allow_functions=self.gate_allow_functions,
            allow_sparse=self.gate_allow_sparse,
            domains=(*STANDARD_DOMAINS, *self.gate_extra_domains),
            full_check=self.gate_full_check,
        )


def load_gate_limits(**flags: Any) -> GateLimits:
    """The limits in force; flags that are None or empty were not given.

    Raises:
        UsageError: the config file or a value in it is not of the form it must have.
    """
    return load_settings_of(GateSettings, flags).limits()
