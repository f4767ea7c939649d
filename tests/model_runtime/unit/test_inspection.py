from __future__ import annotations

from ferryline.model_runtime.inspection import inspect_model
from ferryline.registry.inspection import load_inspector


def test_the_registry_finds_the_inspector_by_its_entry_point() -> None:
    assert load_inspector() is inspect_model
