from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ferryline.registry.cli import examining
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.errors import StoreDeniedError, StoreError, StoreUnreachableError
from ferryline.registry.roles import Role
from ferryline.registry.stores import Store
from tests.faulty_store import FaultyStore
from tests.registry import cheating_stores as cheats


class Doctor:
    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch

    def text(self, store: Store, role: Role | None = None, output: OutputFormat = OutputFormat.TABLE) -> str:
        self._patch.setattr(examining, "open_store", lambda _url: store)
        examining.doctor("memory://here", output, role=role, consumer=None)
        return self._capsys.readouterr().out

    def document(self, store: Store, role: Role | None = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(store, role, OutputFormat.JSON))
        return found


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return Doctor(capsys, monkeypatch)


def test_json_has_a_line_for_every_probe_and_right(doctor: Doctor) -> None:
    found = doctor.document(cheats.Guarded(""), Role.OPERATOR)
    assert {item["outcome"] for item in found["findings"]} == {"passed"}
    assert set(found["findings"][0]) == {"probe", "outcome", "detail"}
    assert set(found["rights"][0]) == {"right", "held", "needed", "detail"}
    assert (found["store"], found["role"]) == ("memory://default", "operator")


def test_read_only_credentials_are_no_fault_of_the_store(doctor: Doctor) -> None:
    text = doctor.text(cheats.Guarded())
    assert "put-if-absent race   not probed" in text
    assert "MISSING" not in text


def test_what_a_role_lacks_is_an_error_that_names_it(doctor: Doctor) -> None:
    with pytest.raises(StoreDeniedError, match=r"not enough for a trainer: they may not .*probe the store"):
        doctor.text(cheats.Guarded("models/"), Role.TRAINER)


def test_a_store_that_cheats_is_an_error_that_names_the_probes(doctor: Doctor) -> None:
    with pytest.raises(StoreError, match="failed put-if-absent race: do not keep a registry there"):
        doctor.text(cheats.CheckingThenWriting())


def test_a_store_that_is_down_is_not_said_to_cheat(doctor: Doctor) -> None:
    store = FaultyStore(cheats.Guarded(""))
    store.down = True
    with pytest.raises(StoreError, match="nothing about memory://default could be found out") as caught:
        doctor.text(store)
    assert not isinstance(caught.value, StoreUnreachableError)
    assert "do not keep" not in str(caught.value)


def test_a_folder_is_examined_like_any_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = (tmp_path / "registry").as_uri()
    examining.doctor(url, OutputFormat.TABLE, role=Role.OPERATOR, consumer=None)
    assert capsys.readouterr().out.count("  pass  ") == 14
