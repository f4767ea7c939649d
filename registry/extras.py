"""The extras that install what each service needs, and what to tell whoever lacks one.

An extra is known here by the top-level modules of the packages that it names (a test compares them with
pyproject.toml), so that a program can look for them before it imports anything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec

from ferryline.registry.errors import UsageError

DISTRIBUTION = "ferryline"
NEWEST_PYTHON_OF_FLINK = (3, 12)


class Extra(StrEnum):
    """An extra of the distribution, for one service each."""

    RUNTIME = "runtime"
    TRAINER = "trainer"
    FLINK = "flink"
    GRPC = "grpc"
    CLIENT = "client"
    OTEL = "otel"
    STACK = "stack"


_RUNTIME = ("numpy", "onnx", "onnxruntime", "prometheus_client")
_TRAINER = (*_RUNTIME, "kafka", "simdjson", "sklearn", "skl2onnx")
_FLINK = (*_RUNTIME, "pyflink", "fastavro", "kafka", "pandas", "pyarrow", "simdjson")
_GRPC = (*_RUNTIME, "aiohttp", "grpc", "grpc_health", "grpc_reflection", "hpack", "google.protobuf", "uvloop")

MODULES: dict[Extra, tuple[str, ...]] = {
    Extra.RUNTIME: _RUNTIME,
    Extra.TRAINER: _TRAINER,
    Extra.FLINK: _FLINK,
    Extra.GRPC: _GRPC,
    Extra.CLIENT: ("grpc", "numpy", "google.protobuf"),
    Extra.OTEL: (*_GRPC, "opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"),
    Extra.STACK: tuple(dict.fromkeys((*_TRAINER, *_FLINK, *_GRPC, "httpx", "jgo", "psutil", "river"))),
}
"""A Java and a Go, which the extra `stack` brings too, may also be the machine's."""


class MissingExtraError(UsageError, ImportError):
    """Packages of an extra are not installed."""


def require_extra(extra: Extra, what: str, modules: Sequence[str] = ()) -> None:
    """Return when the packages of an extra are installed. Only packages around a module are imported.

    Args:
        extra: which.
        what: the program or task that needs it, as the subject of a sentence.
        modules: those of the extra's modules that are needed; all of them by default.

    Raises:
        MissingExtraError: one is missing.
    """
    missing = [module for module in modules or MODULES[extra] if not _is_installed(module)]
    if missing:
        more = f" and {len(missing) - 1} more, which are" if len(missing) > 1 else ", which is"
        raise MissingExtraError(f"{what} needs {missing[0]}{more} missing; {how_to_install(extra, missing)}")


def how_to_install(extra: Extra, missing: Sequence[str] = ()) -> str:
    """Returns what a person does who lacks modules of an extra, as the end of a sentence."""
    if "pyflink" in missing and sys.version_info[:2] > NEWEST_PYTHON_OF_FLINK:
        newest, here = (".".join(map(str, each)) for each in (NEWEST_PYTHON_OF_FLINK, sys.version_info[:2]))
        return f"use a Python up to {newest}, which Flink needs (this is {here})"
    return f"run: pip install '{DISTRIBUTION}[{extra}]'"


def _is_installed(module: str) -> bool:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # a package around it is missing
        return False
    return found is not None and found.origin is not None  # a folder of that name has no origin
