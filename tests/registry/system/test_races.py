from __future__ import annotations

import pytest

from tests.registry.races import Races
from tests.support.sizes import sized


class TestRacesOnMinio(Races):
    # every loser goes all the way to the write, which costs a server four times as much
    unguarded_rounds = sized(8, 50)
    peoples_rounds = sized(2, 3)

    @pytest.fixture
    def store_url(self, minio_store_url: str) -> str:
        return minio_store_url
