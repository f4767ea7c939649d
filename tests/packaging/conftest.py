from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.wheels import Environment, build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment that has the wheel without any extra."""
    made = Environment.made(tmp_path_factory.mktemp("base") / "env")
    made.install(str(wheel))
    return made
