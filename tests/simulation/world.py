"""The world of a history: one registry, its consumers, and whoever changes it. Nothing here judges.

Consumers are the real `Follower` and `HeartbeatReporter`, operators the real `Registry` and
`wait_until_served`, collectors the real `Collector`. A `Judge` is told of what they do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ferryline.registry import Registry, keys
from ferryline.registry.collection import Retention
from ferryline.registry.collector import Collector
from ferryline.registry.convergence import wait_until_served
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts, Operation
from ferryline.registry.errors import FerryError, WaitTimeoutError
from tests.simulation.consumer import Consumer
from tests.simulation.judge import Judge
from tests.simulation.kernel import Kernel
from tests.simulation.log import Log
from tests.simulation.models import (
    CHANNEL,
    MODEL,
    PREFIX,
    beginning,
    content_of,
    facts_of,
    has_other_contract,
    seal_of,
    training_of,
)
from tests.simulation.script import Act, Script, Step
from tests.simulation.store import Troubled, WorldStore

RETENTION = Retention(keep_versions=2, rollback_depth=1, grace=timedelta(seconds=600))
_ENTRY = re.compile(re.escape(PREFIX) + r"([0-9]{10})\.json")


@dataclass(frozen=True, slots=True)
class _Backup:
    objects: dict[str, tuple[Any, Any]]


class World:
    """One history as it happens.

    Args:
        script: what happens.
        folder: where consumers keep files.
    """

    def __init__(self, script: Script, folder: Path) -> None:
        self.script = script
        self.folder = folder
        self.kernel = Kernel()
        self.store = WorldStore(self.kernel)
        self.seal = seal_of(signed=script.signed)
        objects, facts = beginning(signed=script.signed)
        self.store.restore(objects)
        self.facts: dict[str, ModelFacts] = dict(facts)
        self.log = Log()
        self.consumers: list[Consumer] = []
        self.operators: list[Troubled] = []
        self.damaged: set[str] = set()
        self.restored_at = float("-inf")
        self.judge = Judge(self)
        self._backup: _Backup | None = None
        self._published = 100
        for key in sorted(objects):
            self._written(key, self.store.get(key).data)
        self.store.on_write = self._written
        self.store.on_delete = self._deleted

    def prepare(self) -> None:
        """Have every step of the script happen in its time."""
        for number, step in enumerate(self.script.steps):
            self.kernel.at(step.at, lambda step=step, number=number: self._do(step, number))  # type: ignore[misc]

    def calm(self) -> None:
        """From now on nothing goes wrong, and what is suspended goes on."""
        for process in (*self.operators, *(consumer.process for consumer in self.consumers)):
            process.calm()
        self.kernel.wake_all()
        self._take_out_forged()
        for consumer in list(self.consumers):
            if consumer.lives and consumer.lost_log:  # as it is told to
                consumer.process.kill()
                self._start(consumer.number, 0.0)

    def consumer(self, number: int) -> Consumer | None:
        """The newest process of a consumer, where it lives."""
        found = [each for each in self.consumers if each.number == number and not each.process.dead]
        return found[-1] if found else None

    # --- what is seen of the store ------------------------------------------------------------------

    def _written(self, key: str, data: bytes) -> None:
        if match := _ENTRY.fullmatch(key):
            entry = ChannelEntry.decode(data, key=key)
            forged = self.script.signed and entry.signature is None
            self.log.add(int(match[1]), entry, at=self.kernel.seconds, forged=forged)
            if not forged:
                self.judge.written(entry)
        elif "/versions/" in key:
            manifest = Manifest.decode(data, key=key)
            self.log.manifests[manifest.digest] = manifest

    def _deleted(self, key: str) -> None:
        if match := _ENTRY.fullmatch(key):
            self.log.remove(int(match[1]))
        elif key.startswith(keys.BLOBS):
            self.judge.deleted(f"sha256:{key.removeprefix(keys.BLOBS)}")

    # --- steps --------------------------------------------------------------------------------------

    def _do(self, step: Step, number: int) -> None:
        match step.act:
            case Act.START | Act.KILL | Act.STOP | Act.REGRESS | Act.TROUBLE | Act.SUSPEND:
                self._do_to_consumer(step)
            case Act.DAMAGE | Act.MEND:
                self._spoil(step)
            case Act.FORGE:
                self._forge(step)
            case Act.UNFORGE:
                self._take_out_forged()
            case Act.BACKUP:
                self._backup = _Backup(self.store.snapshot())
            case Act.RESTORE:
                self._restore()
            case Act.MANY:
                self._promote_many(step.count)
            case _:
                self._operate(step, f"{step.act} #{number}")

    def _do_to_consumer(self, step: Step) -> None:
        consumer = self.consumer(step.who)
        if step.act is Act.START:
            if consumer is not None:
                consumer.process.kill()
            self._start(step.who, step.skew)
        elif consumer is None:
            return
        elif step.act is Act.KILL:
            consumer.process.kill()
        elif step.act is Act.STOP:
            self.kernel.spawn(consumer.process, consumer.end)
        elif step.act is Act.REGRESS:
            consumer.fail()
        elif step.act is Act.SUSPEND:
            consumer.process.suspend(step.seconds)
        else:
            consumer.process.meet(step.troubles)

    def _start(self, number: int, skew: float) -> None:
        host = self.script.hosts[number]
        process = Troubled(self.store, self.kernel, f"consumer {number}", host=host, pid=1, skew=skew)
        consumer = Consumer(self.judge, number, process)
        process.on_beat = lambda key: self.judge.beat(consumer, key)
        self.consumers.append(consumer)
        folder = self.folder / f"consumer-{number}"
        self.kernel.spawn(process, lambda: consumer.begin(self.script, self.seal, folder))

    def _spoil(self, step: Step) -> None:
        manifest = self.log.manifest_of(step.version)
        if manifest is None or not self.store.has(keys.blob(manifest.blob.digest)):
            return
        key = keys.blob(manifest.blob.digest)
        whole = next(
            data
            for other in (False, True)
            if digest_of(data := content_of(step.version, other=other)) == manifest.blob.digest
        )
        if step.act is Act.DAMAGE:
            self.damaged.add(manifest.blob.digest)
            self.store.put(key, whole[:-1] + b"?")
        else:
            self.store.put(key, whole)

    def _forge(self, step: Step) -> None:
        head = self.log.head
        if head is None or not self.script.signed or head.forged:
            return
        manifest = self.log.manifest_of(step.version)
        if manifest is None:
            return
        entry = head.entry.model_copy(
            update={
                "generation": head.entry.generation + 1,
                "version": manifest.version,
                "blob_digest": manifest.blob.digest,
                "manifest_digest": manifest.digest,
                "operation": Operation.PROMOTE,
                "previous": head.entry.digest,
                "actor": "mallory",
                "signature": None,
                "canary": None,
            }
        )
        self.store.put_if_absent(f"{PREFIX}{entry.generation:010d}.json", entry.encode())

    def _take_out_forged(self) -> None:
        head = self.log.head
        if head is not None and head.forged:
            self.store.delete(f"{PREFIX}{head.entry.generation:010d}.json")

    def _restore(self) -> None:
        if self._backup is None:
            return
        self.store.restore(self._backup.objects)
        self.restored_at = self.kernel.seconds
        self.log.keep(lambda generation: self.store.has(f"{PREFIX}{generation:010d}.json"))
        self.log.manifests = {}
        for listed in self.store.list(keys.versions(MODEL)):
            self._written(listed.key, self.store.get(listed.key).data)
        self.judge.restored()

    def _promote_many(self, count: int) -> None:
        """Promotions of a trainer, one after the other; written as the registry writes them, in less time."""
        head = self.log.head
        if head is None or head.forged or head.entry.held or head.entry.canary is not None:
            return
        entry = head.entry
        others = [version for version in (1, 2) if version != entry.version]
        for number in range(count):
            manifest = self.log.manifest_of(others[number % len(others)])
            if manifest is None or has_other_contract(entry.version):
                return
            if manifest.version == entry.version:
                manifest = self.log.manifest_of(3) or manifest
            entry = entry.model_copy(
                update={
                    "generation": entry.generation + 1,
                    "version": manifest.version,
                    "blob_digest": manifest.blob.digest,
                    "manifest_digest": manifest.digest,
                    "operation": Operation.PROMOTE,
                    "previous": entry.digest,
                    "contract_change": False,
                    "undoes_to": entry.generation,
                    "automatic": True,
                    "op_id": f"{number:032x}",
                }
            )
            entry = self.seal.sign(entry)
            self.store.put_if_absent(f"{PREFIX}{entry.generation:010d}.json", entry.encode())

    # --- operators ----------------------------------------------------------------------------------

    def _operate(self, step: Step, name: str) -> None:
        process = Troubled(self.store, self.kernel, name, host=f"desk-{len(self.operators)}", skew=step.skew)
        process.meet(step.troubles)
        self.operators.append(process)
        registry = Registry(process, actor=name, seal=self.seal)

        def run() -> None:
            try:
                if step.act is Act.COLLECT:
                    self._collect(registry, process)
                elif step.act is Act.PUBLISH:
                    self._publish(registry, step)
                else:
                    self.judge.asked(step, process)
                    entry = self._change(registry, step)
                    self.judge.acknowledged(entry)
                    if step.wait:
                        self._wait(registry, process, entry, step.wait)
            except FerryError as error:
                self.judge.told(step, error)

        self.kernel.spawn(process, run)

    def _collect(self, registry: Registry, process: Troubled) -> None:
        monotonic, pause = process.monotonic, process.sleep
        Collector(registry, RETENTION, monotonic=monotonic, pause=pause, readers=1).run()

    def _publish(self, registry: Registry, step: Step) -> Manifest:
        # the files of old versions are published again at times
        number = step.version if step.act is Act.PUBLISH else self._published
        self._published += 1
        other = has_other_contract(step.version)
        data = content_of(number, other=other)
        self.facts[digest_of(data)] = facts_of(other=other)
        return registry.publish(MODEL, data, facts_of(other=other), training_of(number, other=other))

    def _change(self, registry: Registry, step: Step) -> ChannelEntry:
        changes: dict[Act, Callable[[], ChannelEntry]] = {
            Act.PROMOTE: lambda: registry.promote(
                MODEL, step.version, CHANNEL, force=step.force, allow_contract_change=step.allow
            ),
            Act.CANARY: lambda: registry.promote(
                MODEL, step.version, CHANNEL, canary=10, force=step.force, allow_contract_change=step.allow
            ),
            Act.AUTOMATIC: lambda: registry.promote(
                MODEL, self._publish(registry, step).version, CHANNEL, automatic=True
            ),
            Act.ROLLBACK: lambda: registry.rollback(MODEL, CHANNEL),
            Act.ROLLBACK_TO: lambda: registry.rollback(MODEL, CHANNEL, to=step.version),
            Act.HOLD: lambda: registry.hold(MODEL, CHANNEL),
            Act.RELEASE: lambda: registry.release(MODEL, CHANNEL),
        }
        return changes[step.act]()

    def _wait(self, registry: Registry, process: Troubled, entry: ChannelEntry, seconds: float) -> None:
        began = self.kernel.seconds

        try:
            wait_until_served(
                registry,
                entry,
                seconds=seconds,
                clock=process.monotonic,
                pause=lambda _seconds: process.sleep(self.script.beat / 2),
            )
        except WaitTimeoutError as error:
            self.judge.waited_in_vain(entry, began, error)
        else:
            self.judge.waited(entry, process.looked_at)
