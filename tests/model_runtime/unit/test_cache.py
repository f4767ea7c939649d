"""What killed writers leave in the cache."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from ferryline.model_runtime.cache import ORPHAN_SECONDS, BlobCache
from ferryline.registry.digests import digest_of

DATA = b"a model"


def left_by_a_killed_writer(folder: Path) -> Path:
    cache = BlobCache(folder)
    cache.keep(digest_of(DATA), DATA)
    descriptor, name = tempfile.mkstemp(dir=folder / "blobs")
    os.write(descriptor, b"half of a mod")
    os.close(descriptor)
    return Path(name)


@pytest.mark.parametrize(("age", "stays"), [(ORPHAN_SECONDS / 2, True), (ORPHAN_SECONDS * 2, False)])
def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path, age: float, *, stays: bool) -> None:
    orphan = left_by_a_killed_writer(tmp_path)
    later = BlobCache(tmp_path, clock=lambda: time.time() + age)
    other = b"another model"
    later.keep(digest_of(other), other)
    assert orphan.exists() is stays
    assert later.find(digest_of(DATA)) is not None
    assert later.find(digest_of(other)) is not None
