"""What a command imports: libraries that take long are left to the commands that need them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.waiting import DEADLINE


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported by its end."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv = {['ferry', *arguments]!r}\n"
        "from ferryline.registry.cli.app import main; main()"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    return set(done.stderr.split())


def test_help_waits_for_no_library() -> None:
    heavy = {"pydantic", "rich", "minio", "urllib3", "numpy", "onnx", "orjson", "asyncio", "platformdirs"}
    assert imported("--help") & heavy == set()
    assert imported("promote", "--help") & (heavy - {"pydantic"}) == set()  # typer asks it for defaults


@pytest.mark.usefixtures("published")
def test_a_promotion_waits_for_no_table_and_no_runtime(store_url: str) -> None:
    heavy = {"rich", "minio", "urllib3", "numpy", "onnx", "asyncio", "pydantic_settings", "cryptography"}
    assert imported("promote", "digits@1", "--store", store_url) & heavy == set()


def test_a_program_without_keys_does_not_import_cryptography() -> None:
    script = """
import sys
import ferryline.registry.opening
from ferryline.registry.settings import load_settings
ferryline.registry.opening.open_registry(load_settings(store="memory://x")).publish
import ferryline.registry.cli.app, ferryline.registry.cli.commands.keys
import ferryline.registry.signing.seal, ferryline.registry.signing.verifier
assert "cryptography" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE, env={"PATH": "/usr/bin"})
