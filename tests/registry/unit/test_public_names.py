from __future__ import annotations

import subprocess
import sys

import pytest

import registry


def test_the_public_names() -> None:
    assert registry.__all__ == [
        "ChannelEntry", "Manifest", "ModelFacts", "ModelReference", "Registry", "TrainingRecord",
    ]  # fmt: skip
    for name in registry.__all__:
        assert getattr(registry, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = registry.nothing  # type: ignore[attr-defined]


def test_help_imports_no_heavy_library() -> None:
    script = (
        "import sys, registry.cli.app\n"
        "print([name for name in ('pydantic', 'minio', 'onnx', 'numpy', 'urllib3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
