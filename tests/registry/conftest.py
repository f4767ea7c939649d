"""Fixtures of the command line's tests."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ferryline.registry import ModelFacts, Registry
from ferryline.registry.cli.app import main
from tests.onnx_models import inspect_model, linear_classifier
from tests.registry.ferry import Ferry, Result


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return (tmp_path / "registry").as_uri()


@pytest.fixture
def ferry(
    store_url: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Ferry:
    monkeypatch.setenv("FERRY_STORE", store_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["ferry", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capfdbinary.readouterr()
        return Result(int(str(ended.value.code or 0)), out.decode(), err.decode())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    def write(**model: Any) -> str:
        path = tmp_path / "model.onnx"
        path.write_bytes(linear_classifier(**model))
        return str(path)

    return write


@functools.cache
def _facts() -> ModelFacts:
    # the same for every winner, and looking into a file takes longer than most tests
    return inspect_model(linear_classifier())


@pytest.fixture(scope="session")
def _published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "registry"
    registry = Registry.open(folder.as_uri(), actor="tester")
    for winner in range(3):
        manifest = registry.publish("digits", linear_classifier(winner=winner), _facts())
        registry.promote("digits", manifest.version, reason=f"try {winner}")
    return folder


@pytest.fixture
def published(_published_once: Path, tmp_path: Path) -> None:
    """Versions 1 to 3 of digits in the registry at `store_url`, promoted one after the other."""
    shutil.copytree(_published_once, tmp_path / "registry")
