"""What following costs: promotion to first reply at the default poll, and a hundred models in one process.

A promotion is of a file that the server has never seen, at a random moment between two polls, and the load
gate is part of the way. The hundred models lie in MinIO, one file each; the server is started twice, and the
second start finds every file in its cache. Then nothing is asked and nothing changes, and the process's CPU
time is read.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.grpc_servers import Target, ferry_server, wait_until_ready
from bench.grpc_unary import MODEL
from bench.measure import Comparison, compare, parse_arguments, report
from bench.registry import without_stores
from bench.swap_models import average_row, digits_versions
from ferryline.deploy.stack.local import LocalStack
from ferryline.grpc_server.client import NO_RETRY, Client
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry

ALLOWED_SECONDS = 1.0
ALLOWED_START = 10.0
ALLOWED_CPU_PERCENT = 5.0
ASKED_EVERY = 0.005
SETTLED = 5.0
MODELS = 100


def promotions(server: Target, registry: Registry, versions: list[int]) -> Iterator[float]:
    """Seconds from each promotion to the first reply by what it promoted."""
    draw = random.Random(0)  # noqa: S311 - moments, no secrets
    with Client(server.address, retry=NO_RETRY) as client:
        for version in versions:
            time.sleep(draw.uniform(1.0, 2.0))
            begun = time.monotonic()
            registry.promote(MODEL, version)
            while client.infer(MODEL, average_row()).model.version != str(version):
                time.sleep(ASKED_EVERY)
            yield time.monotonic() - begun


def promotion(folder: Path, count: int) -> Comparison:
    """Promotion to first reply."""
    store = (folder / "registry").as_uri()
    registry = Registry.open(store, actor="bench")
    versions = [
        registry.publish(MODEL, data, read_facts(data)).version for data in digits_versions(count + 1)
    ]
    registry.promote(MODEL, versions[0])
    with ferry_server(store, folder / "cache", [MODEL]) as server:
        found = list(promotions(server, registry, versions[1:]))
    return compare(
        "promotion to first reply, gRPC", "s", "allowed", [(each, ALLOWED_SECONDS) for each in found]
    )


def fleet(folder: Path, store: str, seconds: float) -> Iterator[Comparison]:
    """A hundred models in one process."""
    registry = Registry.open(store, actor="bench")
    names = [f"digits-{number}" for number in range(MODELS)]
    for name, data in zip(names, digits_versions(MODELS), strict=True):
        registry.promote(name, registry.publish(name, data, read_facts(data)).version)
    with ferry_server(store, folder / "cache", names):
        pass  # a cold start fills the cache
    begun = time.monotonic()
    with ferry_server(store, folder / "cache", names, listening_only=True) as server:
        wait_until_ready(server)
        started = time.monotonic() - begun
        time.sleep(SETTLED)
        used, since = server.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        percent = 100 * (server.cpu_seconds() - used) / (time.monotonic() - since)
    yield compare(f"start, {MODELS} models, warm cache", "s", "allowed", [(started, ALLOWED_START)])
    yield compare(f"idle, {MODELS} models", "% of a core", "allowed", [(percent, ALLOWED_CPU_PERCENT)])


@contextlib.contextmanager
def minio(folder: Path) -> Iterator[str]:
    """The store of a MinIO of our own."""
    stack = LocalStack(home=folder / "stack", environ=without_stores())
    try:
        addresses = stack.up(["minio"])
        os.environ.update(addresses.environ())
        yield addresses.store
    finally:
        stack.down(wipe=True)


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "config.toml").touch()
        os.environ.update(FERRY_STATE=str(folder / "state"), FERRY_CONFIG=str(folder / "config.toml"))
        found = [promotion(folder / "one", 5 if arguments.quick else 30)]
        with minio(folder) as store:
            found += fleet(folder / "many", store, 40.0 if arguments.quick else 120.0)
    report(found, arguments)


if __name__ == "__main__":
    main()
