"""What imports what, seen by fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE

ROOT = Path(__file__).parents[3]
SERVERS = ("onnxruntime", "onnx", "pydantic", "structlog", "minio", "aiohttp", "ferryline.model_runtime")


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE, cwd=ROOT)
    return done.stdout


def test_the_client_imports_nothing_of_the_server() -> None:
    code = f"import sys, ferryline.grpc_server.client; print([m for m in {SERVERS} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("order", [("ferryline.protos.grpc_service_pb2", "tritonclient.grpc.service_pb2")])
@pytest.mark.parametrize("first", [0, 1])
def test_tritons_protocol_and_ours_are_imported_in_either_order(order: tuple[str, str], first: int) -> None:
    # the version as in conftest.py, for the same reason
    run(f"import grpc; grpc.__version__ = '999.0.0'; import {order[first]}; import {order[1 - first]}")
