from __future__ import annotations

from pathlib import Path

import pytest

from registry.guarded import GuardedStore
from registry.stores import Store
from registry.stores.memory import MemoryStore
from tests.registry.store_conformance import StoreConformance


class TestGuardedStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return GuardedStore(MemoryStore(), tmp_path)
