"""Writers to MinIO that are killed or frozen at their requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ferryline.deploy.stack.addresses import Addresses
from tests.registry.interruptions import Interruptions
from tests.registry.victims import Victims
from tests.support.sizes import sized


@pytest.fixture(scope="module")
def victims(minio: Addresses) -> Iterator[Victims]:
    # after the store is up, whose credentials it inherits
    with Victims() as started:
        yield started


class TestInterruptionsOnMinio(Interruptions):
    every = sized(3, 1)

    @pytest.fixture
    def store_url(self, minio_store_url: str) -> str:
        return minio_store_url
