"""What a program says on another system than Linux."""

from __future__ import annotations

import sys

import pytest
import typer

from ferryline.model_runtime.gate import Gate
from ferryline.registry.cli.edge import run_app
from ferryline.registry.errors import UsageError
from ferryline.registry.systems import require_linux


def test_on_linux_everything_runs() -> None:
    require_linux("a program")


@pytest.mark.parametrize(("platform", "name"), [("darwin", "macOS"), ("win32", "Windows"), ("aix", "aix")])
def test_elsewhere_the_system_is_named_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], platform: str, name: str
) -> None:
    def imports_nothing() -> typer.Typer:
        raise AssertionError("it began")

    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SystemExit) as ended:
        run_app(imports_nothing, "ferry-server", linux=True)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        f"error: ferry-server needs Linux, and this is {name}; run it in"
    )
    with pytest.raises(UsageError, match=f"judging a model needs Linux, and this is {name}"):
        Gate()
