"""Verdicts that were favourable, kept beside the file in the private cache: a restart does not pay again."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import orjson
from pydantic import ValidationError

from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.registry.digests import digest_of, hex_of
from ferryline.registry.documents import ModelFacts

SUFFIX = ".passed"

_FORM = 1  # of the gate itself; raise it when a check is added
_LIBRARIES = ("onnx", "onnxruntime", "numpy")

# each parses a file of metadata: 4 ms of Python in all, which requests would wait behind at every swap
_version_of = functools.cache(version)


def verdict_key(digest: str, limits: GateLimits, golden: bytes | None) -> str:
    """What a verdict holds for: the file, the policy, the golden rows, and who judged; 64 hex digits."""
    judged = {
        "form": _FORM,
        "digest": digest,
        "limits": limits.digest,
        "golden": None if golden is None else digest_of(golden),
        "libraries": {name: _version_of(name) for name in _LIBRARIES},
        "machine": platform.machine(),
    }
    return hex_of(digest_of(orjson.dumps(judged, option=orjson.OPT_SORT_KEYS)))


class VerdictMemory:
    """Verdicts about the file at `path`, in the same folder, which must be this user's alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self, key: str) -> ModelFacts | None:
        """The facts of the file, if it passed under `key`."""
        try:
            digest, _, body = self._file(key).read_bytes().partition(b"\n")
            if digest.decode() != digest_of(body):
                return None
            return ModelFacts.model_validate_json(body)
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def keep(self, key: str, facts: ModelFacts) -> None:
        """Remember; where that fails, the next start pays again and nothing else is lost."""
        body = facts.model_dump_json().encode()
        with contextlib.suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(digest_of(body).encode() + b"\n" + body)
                Path(name).replace(self._file(key))
            finally:
                Path(name).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._path.with_name(f"{self._path.stem}.{key[:32]}{SUFFIX}")
