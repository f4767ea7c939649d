"""What happens on a disk that is full, told as JSON; run in a process of its own, on a disk of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.registry import Registry
from ferryline.registry.cli.edge import exit_code
from ferryline.registry.digests import digest_of
from ferryline.registry.errors import FerryError
from ferryline.registry.logs import LogFormat, configure_logs
from ferryline.registry.stores.folder import FolderStore
from ferryline.registry.stores.memory import MemoryStore
from tests.onnx_models import inspect_model, linear_classifier
from tests.registry.histories import MODEL, facts
from tests.support.waiting import DEADLINE, wait_for

FERRY = str(Path(sys.executable).with_name("ferry"))
LARGE = 64 * 1024


def main() -> None:
    """Run one of the trials on a folder."""
    configure_logs(LogFormat.JSON)  # to standard error, as standard output is for what was found
    trial, folder = sys.argv[1], Path(sys.argv[2])
    sys.stdout.buffer.write(orjson.dumps(TRIALS[trial](folder)))


# --- the folder store -----------------------------------------------------------------------------


def full_store(folder: Path) -> dict[str, Any]:
    """A folder store whose disk fills up, and has room again."""
    registry = _served(folder)
    with _filled(folder):
        errors = [
            _error(lambda: registry.publish(MODEL, os.urandom(LARGE), facts())),
            _error(lambda: registry.promote(MODEL, 2)),
        ]
        command = _ferry(folder, "promote", f"{MODEL}@2")
        seen = _seen(registry)
    registry.promote(MODEL, 2)
    registry.publish(MODEL, os.urandom(LARGE), facts())
    return {"errors": errors, "command": command, "full": seen, "after": _seen(registry)}


def limited_store(folder: Path) -> dict[str, Any]:
    """A folder store whose process may write no large file, which needs no disk of its own."""
    registry = _served(folder)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE // 2, hard))
    errors = [_error(lambda: registry.publish(MODEL, os.urandom(LARGE), facts()))]
    seen = _seen(registry)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    registry.publish(MODEL, os.urandom(LARGE), facts())
    return {"errors": errors, "full": seen, "after": _seen(registry)}


def _served(folder: Path) -> Registry:
    registry = Registry(FolderStore(folder / "registry"), actor="tester")
    for number in (1, 2):
        registry.publish(MODEL, b"model %d" % number, facts())
    registry.promote(MODEL, 1)
    return registry


def _seen(registry: Registry) -> dict[str, Any]:
    versions = registry.versions(MODEL)
    root = Path(registry.store.url.removeprefix("file://"))
    return {
        "generations": [entry.generation for entry in registry.channel(MODEL).history()],
        "versions": [len(versions.load(versions.get(number))) for number in versions.numbers()],
        "left behind": len(list((root / ".incoming").iterdir())),
    }


def _error(act: Callable[[], object]) -> dict[str, Any]:
    try:
        act()
    except FerryError as error:
        return {"code": int(exit_code(error)), "text": str(error)}
    return {}


def _ferry(folder: Path, *arguments: str) -> dict[str, Any]:
    environ = os.environ | {"FERRY_STORE": (folder / "registry").as_uri(), "FERRY_STATE": "/nonexistent"}
    done = subprocess.run(
        [FERRY, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    return {"code": done.returncode, "text": done.stderr}


@contextlib.contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """The rest of the disk is taken, to the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    yield
    filler.unlink()


# --- the cache of a consumer ----------------------------------------------------------------------


def full_cache(folder: Path) -> dict[str, Any]:
    """A follower whose cache has no room for the next version, and has it again."""
    registry = Registry(MemoryStore(), actor="tester")
    for winner in (1, 2):
        data = linear_classifier(winner=winner)
        registry.publish(MODEL, data, inspect_model(data))
    registry.promote(MODEL, 1)
    follower = Follower(
        registry, MODEL, cache=folder / "cache", settings=FollowerSettings(poll_interval=0.05)
    )
    follower.start()
    wait_for(lambda: _serving(follower) == 1, "the first version")
    with _filled(folder):
        registry.promote(MODEL, 2)
        wait_for(lambda: follower.report().last_error, "an error that is told")
        told, served = follower.report().last_error, _serving(follower)
    wait_for(lambda: _serving(follower) == 2, "the second version")
    follower.stop()
    return {"told": told, "served": served, "after": _serving(follower), "temporary": _temporary(folder)}


def kept_cache(folder: Path) -> dict[str, Any]:
    """A cache that keeps what it has when it can take no more."""
    cache = BlobCache(folder / "cache")
    small, large = b"small", os.urandom(LARGE)
    cache.keep(digest_of(small), small)
    with _filled(folder):
        error = _error(lambda: cache.keep(digest_of(large), large))
        kept = cache.find(digest_of(small)) is not None
        absent = cache.find(digest_of(large)) is None
    cache.keep(digest_of(large), large)
    return {"errors": [error], "kept": kept, "absent": absent, "temporary": _temporary(folder)}


def _serving(follower: Follower) -> int:
    served = follower.current
    return served.version if served else 0


def _temporary(folder: Path) -> list[str]:
    return [path.name for path in (folder / "cache").rglob("*") if path.name.startswith("tmp")]


TRIALS = {
    "full-store": full_store,
    "limited-store": limited_store,
    "full-cache": full_cache,
    "kept-cache": kept_cache,
}

if __name__ == "__main__":
    main()
