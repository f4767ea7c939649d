"""A server finds the files that one of the last release under the former name had fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.documents import Role
from ferryline.registry.settings import load_settings
from tests.support import former_release


def test_a_cached_file_is_found_and_its_metadata_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former_release.made(tmp_path, monkeypatch)
    file = BlobCache(load_settings().cache).find(former_release.DIGEST)
    assert file is not None
    assert b"modelferry.role.label" in file.read_bytes()
    facts = read_facts(file.read_bytes())
    assert facts.classes == tuple(range(10))
    assert [spec.role for spec in facts.outputs] == [Role.LABEL, Role.PROBABILITY]
