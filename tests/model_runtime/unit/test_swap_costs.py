"""What a swap must not cost those who are answered meanwhile."""

from __future__ import annotations

import gc
from importlib import metadata
from pathlib import Path

import pytest

from ferryline.model_runtime import memory
from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.gate import GateLimits
from ferryline.model_runtime.gate.verdicts import verdict_key
from ferryline.model_runtime.memory import SESSION_BYTES, TREE_FACTOR, session_bytes
from ferryline.registry.digests import digest_of
from tests.onnx_models import linear_classifier


@pytest.mark.parametrize("cut", [0, 1, 6, 11, 12])
def test_a_word_across_two_pieces_is_found(tmp_path: Path, cut: int) -> None:
    file, word = tmp_path / "m.onnx", b"TreeEnsemble"
    size = memory._PIECE - cut
    file.write_bytes(b"x" * size + word + b"y" * memory._PIECE)
    assert session_bytes(file) == SESSION_BYTES + TREE_FACTOR * (size + len(word) + memory._PIECE)


def test_the_libraries_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key = verdict_key("sha256:1", GateLimits(), None)

    def read(name: str) -> str:
        raise AssertionError(f"the metadata of {name} are read again")

    monkeypatch.setattr(metadata, "distribution", read)
    assert verdict_key("sha256:1", GateLimits(), None) == key


def test_a_file_that_vanishes_while_the_cache_is_pruned_is_no_fault(tmp_path: Path) -> None:
    cache, data = BlobCache(tmp_path), linear_classifier()
    kept = cache.keep(digest_of(data), data)
    kept.with_name(f"{'0' * 64}.onnx").symlink_to(tmp_path / "nowhere")
    cache.keep(digest_of(b"other"), b"other")
    assert cache.find(digest_of(data)) == kept


def test_memory_is_given_back_without_garbage_at_each_swap() -> None:
    memory.release_free_memory()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(10):
            memory.release_free_memory()
        assert len(gc.get_objects()) - before < 10
    finally:
        gc.enable()
