"""The registry at 10, 1,000 and 10,000 versions and generations, beside itself when small and beside MLflow.

First each verb of a large registry takes turns with the same verb of one with 10 versions: a ratio near 1
says that its cost does not grow. `list` has to list the log once, so one listing is a line of its own. Then
each takes turns with MLflow's client on a SQLite file of the same size, in a process of its own. The work is
the same as far as the two can be compared: ours stores the model's file and a manifest, where MLflow's
register keeps a path; ours writes an entry of a history and a hint, where MLflow's alias overwrites a row.

The versions and entries beyond the first are made from its documents, and written through the store many at
a time, without the look at the log's head that a publish takes; MLflow is filled by its client.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.grpc_unary import publish_digits
from bench.measure import Comparison, alternate, compare, parse_arguments, report
from bench.mlflow_peer import NAME, MlflowPeer, mlflow_peer
from ferryline.deploy.stack.local import LocalStack
from ferryline.model_runtime.follower import Follower, FollowerObserver, FollowerSettings
from ferryline.registry import keys
from ferryline.registry.catalogue import Registry
from ferryline.registry.cli import viewing
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.documents import Heartbeat, Manifest, ModelFacts, ServedModelReport, utc_now
from ferryline.registry.hints import Hints
from ferryline.registry.log import AppendLog
from ferryline.registry.logs import LogFormat, configure_logs
from ferryline.registry.names import ModelReference
from ferryline.registry.stores import Store, open_store

MODEL, CHANNEL = "digits", "production"
REFERENCE = ModelReference(MODEL)
HANDS = 16
NEWEST = 20
CONSUMERS = 3
ALLOWED_CPU_MS = 5.0


# --- a registry of a size -----------------------------------------------------------------------------


def fill(url: str, size: int) -> None:
    """A registry with `size` versions of one model, each promoted once, in order."""
    publish_digits(url)
    store = open_store(url)
    registry = Registry(store, actor="bench")
    with ThreadPoolExecutor(HANDS) as pool:
        for _ in pool.map(lambda item: store.put_if_absent(*item), documents(registry, size)):
            pass
    hints = Hints(store)
    hints.tell_version(MODEL, size)
    hints.tell_generation(MODEL, CHANNEL, size)
    manifest = registry.versions(MODEL).get(size)
    for number in range(CONSUMERS):
        registry.consumers.beat(heartbeat(f"grpc-{number}", manifest))
    # what was written is what the registry itself would have written, or it says so here
    assert [entry.generation for entry in registry.channel(MODEL).newest(50)][-1] == size
    assert registry.resolve(REFERENCE).version == size


def documents(registry: Registry, size: int) -> Iterator[tuple[str, bytes]]:
    """The keys and bytes of all manifests and entries after the first ones."""
    versions = AppendLog(registry.store, keys.versions(MODEL))
    entries = AppendLog(registry.store, keys.channel(MODEL, CHANNEL))
    manifest, entry = registry.versions(MODEL).get(1), registry.channel(MODEL).require_head()
    for number in range(2, size + 1):
        manifest = manifest.model_copy(update={"version": number, "op_id": f"{number:032x}"})
        entry = entry.model_copy(
            update={
                "generation": number,
                "version": number,
                "manifest_digest": manifest.digest,
                "op_id": f"{number:032x}",
                "previous": entry.digest,
                "undoes_to": number - 1,
            }
        )
        yield versions.key(number), manifest.encode()
        yield entries.key(number), entry.encode()


def heartbeat(consumer: str, manifest: Manifest) -> Heartbeat:
    """A live consumer that serves a version, under the generation of the same number."""
    now = utc_now()
    report_ = ServedModelReport(
        model=MODEL,
        channel=CHANNEL,
        phase="serving",
        generation=manifest.version,
        version=manifest.version,
        digest=manifest.blob.digest,
        since=now,
    )
    return Heartbeat(
        consumer=consumer,
        role="grpc",
        host="bench",
        pid=1,
        started_at=now,
        at=now,
        interval_seconds=3600,
        models=(report_,),
    )


# --- the verbs ----------------------------------------------------------------------------------------


@dataclass
class Ours:
    """One registry and its verbs; each gives the milliseconds it took."""

    url: str
    size: int
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry.open(self.url, actor="bench")
        manifest = self.registry.versions(MODEL).get(1)
        self._file = self.registry.versions(MODEL).load(manifest)
        self._facts = ModelFacts(**{name: getattr(manifest, name) for name in ModelFacts.model_fields})
        self._turns = itertools.cycle([1, 2])

    def publish(self) -> float:
        """A new version, file included."""
        data = self._file + os.urandom(16)  # another file each time; nobody loads it
        return timed(lambda: self.registry.publish(MODEL, data, self._facts))

    def promote(self) -> float:
        """Another version than the present one."""
        return timed(lambda: self.registry.promote(MODEL, next(self._turns), force=True))

    def rollback(self) -> float:
        """To the version before."""
        self.registry.promote(MODEL, next(self._turns), force=True)
        return timed(lambda: self.registry.rollback(MODEL))

    def resolve(self) -> float:
        """What the channel serves."""
        return timed(lambda: self.registry.resolve(REFERENCE))

    def listing(self) -> float:
        """One bare listing of a log."""
        return timed(lambda: list(self.registry.store.list(keys.versions(MODEL))))

    def list_newest(self) -> float:
        """`ferry list MODEL`."""
        return printed(lambda: viewing.list_versions(self.url, OutputFormat.JSON, MODEL, NEWEST))

    def list_all(self) -> float:
        """Every version, with its manifest."""
        return timed(lambda: list(self.registry.versions(MODEL).all()))

    def history(self) -> float:
        """`ferry history MODEL`."""
        return printed(lambda: viewing.history(self.url, OutputFormat.JSON, MODEL, NEWEST))

    def status(self) -> float:
        """`ferry status`."""
        return printed(lambda: viewing.status(self.url, OutputFormat.JSON, None))


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of `work`."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def printed(work: Callable[[], object]) -> float:
    """Milliseconds of a command's `work`, whose output is thrown away."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        return timed(work)


SCALING: dict[str, Callable[[Ours], float]] = {
    "publish": Ours.publish,
    "promote": Ours.promote,
    "rollback": Ours.rollback,
    "resolve": Ours.resolve,
    "one listing": Ours.listing,
    f"list, newest {NEWEST}": Ours.list_newest,
    f"history, newest {NEWEST}": Ours.history,
    "status": Ours.status,
}

BESIDE_MLFLOW: dict[str, tuple[Callable[[Ours], float], str]] = {
    "publish / register": (Ours.publish, "register"),
    "promote / set alias": (Ours.promote, "set_alias"),
    "resolve": (Ours.resolve, "resolve"),
    f"list, newest {NEWEST}": (Ours.list_newest, "list_newest"),
    "list all": (Ours.list_all, "list_all"),
}


# --- the follower's poll ------------------------------------------------------------------------------


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.requests = 0
        self._store = store

    def __getattr__(self, verb: str) -> Any:
        act = getattr(self._store, verb)

        def count(*arguments: Any, **options: Any) -> Any:
            self.requests += 1
            return act(*arguments, **options)

        return count


class Polls(FollowerObserver):
    """Counts a follower's polls."""

    count = 0

    def polled(self) -> None:
        """One more."""
        self.count += 1


def poll(url: str, folder: Path, seconds: float) -> tuple[float, float]:
    """CPU milliseconds and requests of one poll by a real follower that serves and finds nothing new."""
    store, polls = Counted(open_store(url)), Polls()
    follower = Follower(
        Registry(store),
        MODEL,
        cache=folder / "cache",
        settings=FollowerSettings(poll_interval=0.01),
        observer=polls,
    )
    follower.start()
    try:
        assert follower.wait_until_serving(60) is not None, follower.report()
        time.sleep(0.2)  # what a swap leaves to do is no part of a poll
        cpu, requests, begun = time.process_time(), store.requests, polls.count
        time.sleep(seconds)
        done = polls.count - begun
        return (time.process_time() - cpu) * 1000 / done, (store.requests - requests) / done
    finally:
        follower.stop()


# --- the tables ---------------------------------------------------------------------------------------


def scaling(name: str, small: Ours, large: Ours, rounds: int) -> Iterator[Comparison]:
    """Each verb of a large registry beside the same of a small one."""
    for verb, act in SCALING.items():
        pairs = alternate(lambda act=act: act(large), lambda act=act: act(small), rounds=rounds)  # type: ignore[misc]  # bound to this turn
        yield compare(f"{verb}, {name}, {large.size:,}", "ms", f"at {small.size}", pairs)


def beside_mlflow(name: str, ours: Ours, peer: MlflowPeer, rounds: int) -> Iterator[Comparison]:
    """The verbs that both have, at one size."""
    for verb, (act, theirs) in BESIDE_MLFLOW.items():
        few = 3 if verb == "list all" and ours.size > 1000 else rounds  # noqa: PLR2004 - seconds each
        pairs = alternate(
            lambda act=act: act(ours),  # type: ignore[misc]  # bound to this turn
            lambda theirs=theirs: peer.seconds(theirs) * 1000,  # type: ignore[misc]  # likewise
            rounds=few,
        )
        yield compare(f"{verb}, {name}, {ours.size:,}", "ms", NAME, pairs)


def polling(name: str, ours: Ours, folder: Path, seconds: float, rounds: int) -> Iterator[Comparison]:
    """What following costs, beside what it may."""
    found = [poll(ours.url, folder, seconds) for _ in range(rounds)]
    cpu = [(each, ALLOWED_CPU_MS) for each, _ in found]
    requests = [(each, 1.0) for _, each in found]
    yield compare(f"follower's poll, {name}, {ours.size:,}", "CPU ms", "allowed", cpu)
    yield compare(f"follower's poll, {name}, {ours.size:,}", "requests", "allowed", requests)


def measure(arguments: argparse.Namespace, folder: Path, stores: dict[str, str]) -> Iterator[Comparison]:
    """Everything."""
    sizes, rounds, seconds = ((10, 1000), 5, 1.0) if arguments.quick else ((10, 1000, 10_000), 21, 4.0)
    registries: dict[str, list[Ours]] = {}
    for name, url in stores.items():
        registries[name] = [registry_of(url, size, name) for size in sizes]
        small, large = registries[name][0], registries[name][-1]
        yield from scaling(name, small, large, rounds)
        yield from polling(name, large, folder, seconds, 3)
    for index, size in enumerate(sizes):
        sys.stderr.write(f"filling {NAME} with {size:,} versions\n")
        with mlflow_peer(folder, size) as peer:
            for name, found in registries.items():
                yield from beside_mlflow(name, found[index], peer, rounds)


def registry_of(url: str, size: int, name: str) -> Ours:
    """A filled registry below `url`."""
    base, question, query = url.partition("?")
    own = f"{base}/bench-{os.getpid()}-{size}{question}{query}"
    begun = time.monotonic()
    fill(own, size)
    sys.stderr.write(f"filled {name} with {size:,} versions in {time.monotonic() - begun:.1f} s\n")
    return Ours(own, size)


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    configure_logs(LogFormat.CONSOLE)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as exits:
        folder = Path(temporary)
        os.environ.update(FERRY_STATE=str(folder / "state"), FERRY_CONFIG=str(folder / "config.toml"))
        (folder / "config.toml").touch()
        stack = LocalStack(home=folder / "stack", environ=without_stores())
        exits.callback(stack.down, wipe=True)
        addresses = stack.up(["minio"])
        os.environ.update(addresses.environ())
        stores = {"MinIO": addresses.store, "folder": (folder / "registries").as_uri()}
        found = list(measure(arguments, folder, stores))
    report(found, arguments)


def without_stores() -> dict[str, str]:
    """The environment without what would make the stack use a store that runs elsewhere."""
    return {name: value for name, value in os.environ.items() if name != "FERRY_STORE"}


if __name__ == "__main__":
    main()
