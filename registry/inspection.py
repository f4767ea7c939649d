"""How the catalogue learns what an ONNX file holds without importing anything that can read one.

The package that can read one (`model_runtime`) registers an inspector under the entry-point group
`ferryline.inspectors`, so the arrow between the two keeps pointing at the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import cast

from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.errors import UsageError

GROUP = "ferryline.inspectors"

Inspector = Callable[[bytes, GoldenRows | None], ModelFacts]
"""Judges the bytes of a model, with the golden rows it is published with, and tells what it holds; raises
`RefusedError` where it must not be served."""


def load_inspector(model_format: str = "onnx") -> Inspector:
    """The installed inspector for `model_format`.

    Raises:
        UsageError: none is installed.
    """
    for point in entry_points(group=GROUP, name=model_format):
        return cast("Inspector", point.load())
    raise UsageError(f"no inspector for {model_format.upper()} files is registered as {GROUP!r}")
