"""A follower of a memory store that a test can break, and who sees what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson

from ferryline.model_runtime.follower import Follower, FollowerObserver, FollowerSettings
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.served import ServedModel
from ferryline.registry import Registry
from ferryline.registry.documents import GoldenRows, TrainingRecord
from ferryline.registry.stores import Store
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import FaultyStore, Observed, Verb
from tests.onnx_models import golden_rows, inspect_model, linear_classifier
from tests.support.waiting import DEADLINE

FAST = FollowerSettings(poll_interval=0.01)


class Witness(FollowerObserver):
    """Keeps what happened, and lets a test wait for it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.swaps: list[tuple[int, int]] = []
        self.refusals: list[Refusal] = []
        self.failures: list[str] = []

    def swapped(self, served: ServedModel, seconds: float) -> None:
        self._note(lambda: self.swaps.append((served.generation, served.version)))

    def refused(self, refusal: Refusal) -> None:
        self._note(lambda: self.refusals.append(refusal))

    def failed(self, reason: str) -> None:
        self._note(lambda: self.failures.append(reason))

    def wait(self, condition: Callable[[Witness], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), DEADLINE), vars(self)

    def _note(self, note: Callable[[], None]) -> None:
        with self.changed:
            note()
            self.changed.notify_all()


class KeysRead(Observed):
    """Remembers what it was asked for."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.keys: list[str] = []

    def before(self, verb: Verb, key: str) -> None:
        self.keys.append(key)


class Setting:
    """A registry, a follower of digits:production, and its witness."""

    def __init__(self, folder: Path, settings: FollowerSettings = FAST) -> None:
        self.memory = MemoryStore()
        self.reads = KeysRead(self.memory)
        self.store = FaultyStore(self.reads)
        self.registry = Registry(self.memory, actor="tester")
        self.witness = Witness()
        self.follower = Follower(
            Registry(self.store), "digits", cache=folder / "cache", settings=settings, observer=self.witness
        )

    def publish(self, winner: int, *, features: int = 4, golden: GoldenRows | None = None) -> int:
        data = linear_classifier(features, winner=winner)
        record = TrainingRecord(golden=golden or golden_rows(features, winner=winner))
        return self.registry.publish("digits", data, inspect_model(data), record).version

    def serve(self, winner: int) -> int:
        generation = self.registry.promote("digits", self.publish(winner)).generation
        self.witness.wait(lambda witness: any(swap[0] == generation for swap in witness.swaps))
        return generation

    def label(self) -> int:
        served = self.follower.current
        assert served is not None
        return int(served.session.run({"input": np.zeros((1, 4), np.float32)})["label"][0])


# --- ways to damage a version ------------------------------------------------------------------------


def blob_key(setting: Setting, version: int) -> str:
    digest = setting.registry.versions("digits").get(version).blob.digest
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def rewrite(setting: Setting, key: str, **fields: object) -> None:
    raw = orjson.loads(setting.memory.get(key).data) | fields
    setting.memory.put(key, orjson.dumps(raw))


def flip_a_bit(setting: Setting, version: int) -> None:
    data = bytearray(setting.memory.get(blob_key(setting, version)).data)
    data[-1] ^= 1
    setting.memory.put(blob_key(setting, version), bytes(data))


def truncate(setting: Setting, version: int) -> None:
    key = blob_key(setting, version)
    setting.memory.put(key, setting.memory.get(key).data[:100])


def remove_blob(setting: Setting, version: int) -> None:
    setting.memory.delete(blob_key(setting, version))


def write_newer_schema(setting: Setting, version: int) -> None:
    rewrite(setting, f"models/digits/versions/{version:010d}.json", schema_version="9.0")


def alter_manifest(setting: Setting, version: int) -> None:
    rewrite(setting, f"models/digits/versions/{version:010d}.json", actor="mallory")
