from __future__ import annotations

import pytest

from ferryline import registry


def test_the_public_names() -> None:
    assert registry.__all__ == [
        "ChannelEntry", "Manifest", "ModelFacts", "ModelReference", "Registry", "TrainingRecord",
    ]  # fmt: skip
    for name in registry.__all__:
        assert getattr(registry, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = registry.nothing  # type: ignore[attr-defined]
