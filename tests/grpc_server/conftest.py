"""Fixtures of the server's tests, and Triton's client made importable.

Its generated code asks for grpcio 1.67 or newer, and apache-beam holds grpcio below 1.66 for the whole lock.
It runs on 1.65 all the same: only its check of the version stands in the way.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.grpc_server.shop import Shop

with pytest.MonkeyPatch.context() as patch:
    patch.setattr(grpc, "__version__", "999.0.0")
    importlib.import_module("tritonclient.grpc")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()
