from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.guarded import GuardedStore
from ferryline.registry.stores import Store
from ferryline.registry.stores.memory import MemoryStore
from tests.registry.store_conformance import StoreConformance


class TestGuardedStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return GuardedStore(MemoryStore(), tmp_path)
