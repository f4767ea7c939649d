"""Favourable verdicts are remembered for exactly what they were found for; settings become limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ferryline.model_runtime.cache import KEPT_BYTES, KEPT_FILES, MOST_FILES, BlobCache, _kept
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.gate import Gate, GateLimits, load_gate_limits
from ferryline.model_runtime.gate.verdicts import VerdictMemory, verdict_key
from ferryline.registry.digests import digest_of
from ferryline.registry.errors import RefusedError, UsageError
from tests.onnx_models import linear_classifier

DATA = linear_classifier()
DIGEST = digest_of(DATA)
FACTS = read_facts(DATA)
LIMITS = GateLimits()


def test_a_verdict_is_recalled_by_its_key_alone(tmp_path: Path) -> None:
    memory, key = VerdictMemory(tmp_path / "a.onnx"), verdict_key(DIGEST, LIMITS, b"rows")
    assert memory.recall(key) is None
    memory.keep(key, FACTS)
    assert VerdictMemory(tmp_path / "a.onnx").recall(key) == FACTS
    assert VerdictMemory(tmp_path / "b.onnx").recall(key) is None
    assert memory.recall(verdict_key(DIGEST, LIMITS, None)) is None


def test_every_part_of_the_judgement_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        verdict_key(DIGEST, LIMITS, None),
        verdict_key(DIGEST, LIMITS, b"rows"),
        verdict_key(DIGEST, LIMITS, b"other rows"),
        verdict_key(digest_of(b"other"), LIMITS, None),
        verdict_key(DIGEST, replace(LIMITS, allow_functions=True), None),
    }
    monkeypatch.setattr(
        "ferryline.model_runtime.gate.verdicts._version_of", lambda name: f"{name} of tomorrow"
    )
    assert verdict_key(DIGEST, LIMITS, None) not in keys
    assert len(keys) == 5


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff\n{}", b"sha256:0\n{}"])
def test_a_damaged_verdict_is_none(tmp_path: Path, damage: bytes) -> None:
    memory, key = VerdictMemory(tmp_path / "a.onnx"), verdict_key(DIGEST, LIMITS, None)
    memory.keep(key, FACTS)
    (file,) = tmp_path.glob("*.passed")
    file.write_bytes(file.read_bytes().replace(b"float32", b"float64"))
    assert memory.recall(key) is None
    file.write_bytes(damage)
    assert memory.recall(key) is None


def test_a_verdict_that_cannot_be_kept_is_no_fault(tmp_path: Path) -> None:
    VerdictMemory(tmp_path / "nowhere" / "a.onnx").keep(verdict_key(DIGEST, LIMITS, None), FACTS)


def test_verdicts_leave_the_cache_with_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferryline.model_runtime.cache.KEPT_BYTES", 0)
    cache = BlobCache(tmp_path)
    path = cache.keep(DIGEST, DATA)
    VerdictMemory(path).keep(verdict_key(DIGEST, LIMITS, None), FACTS)
    for index in range(KEPT_FILES):
        data = b"%d" % index
        cache.keep(digest_of(data), data)
    assert not list(path.parent.glob(f"{path.stem}*"))
    assert len(list(path.parent.iterdir())) == KEPT_FILES


@pytest.mark.parametrize(
    ("sizes", "stay"),
    [
        ([KEPT_BYTES] * 10, 10),
        ([KEPT_BYTES] * 100, KEPT_FILES),
        ([1] * 500, 500),
        ([1] * 2000, MOST_FILES),
        ([KEPT_BYTES // 100] * 500, 100),
    ],
)
def test_many_small_files_stay_and_few_big_ones(sizes: list[int], stay: int) -> None:
    assert _kept(sizes) == stay


def test_a_file_that_is_too_big_is_not_even_fetched() -> None:
    gate = Gate(GateLimits(max_bytes=2**20))
    gate.require_size(2**20)
    with pytest.raises(RefusedError, match="FERRY_GATE_MAX_FILE_MIB") as caught:
        gate.require_size(2**20 + 1)
    assert caught.value.gate == "size"
    with pytest.raises(RefusedError, match="size"):
        gate.admit(bytes(2**20 + 1))


def test_settings_become_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_gate_limits() == GateLimits()
    monkeypatch.setenv("FERRY_GATE_MAX_TENSOR_MIB", "1024")
    monkeypatch.setenv("FERRY_GATE_ALLOW_SPARSE", "true")
    monkeypatch.setenv("FERRY_GATE_EXTRA_DOMAINS", "com.microsoft, mine")
    limits = load_gate_limits(gate_wall_seconds=5.0)
    assert (limits.max_tensor_bytes, limits.wall_seconds, limits.allow_sparse) == (2**30, 5.0, True)
    assert limits.domains == ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "mine")
    assert limits.digest != GateLimits().digest


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_FILE_MIB", "4096"), ("WALL_SECONDS", "0"), ("ALLOW_SPARSE", "perhaps")]
)
def test_settings_of_no_meaning_are_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FERRY_GATE_{name}", value)
    with pytest.raises(UsageError, match=f"FERRY_GATE_{name}"):
        load_gate_limits()
