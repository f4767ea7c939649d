"""Judges a history as it happens.

A breach is written down and the history goes on, as another invariant may be broken by something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ferryline.model_runtime.follower.rules import REGRESSION, Refusal
from ferryline.model_runtime.served import ServedModel
from ferryline.registry import garbage, keys
from ferryline.registry.contract import contract_break
from ferryline.registry.documents import ChannelEntry, Operation
from ferryline.registry.errors import FerryError, WaitTimeoutError
from tests.simulation.invariants import Breach, Invariant
from tests.simulation.log import Written
from tests.simulation.script import Step
from tests.simulation.store import Place, Troubled

if TYPE_CHECKING:
    from tests.simulation.consumer import Consumer
    from tests.simulation.world import World

SETTLED = 60.0
"""After so many seconds everyone must act on what is known: longer than a run of the collector may rely on
what it has read."""


WAY_BACK = 10
"""So many steps back are judged; consumers look no further."""


class Judge:
    """Watches one history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.breaches: list[Breach] = []
        self._acknowledged: dict[str, ChannelEntry] = {}
        self._asked: dict[str, Step] = {}
        self._named_since: dict[str, float] = {}
        self._ever_served: set[str] = set()
        self._writers: dict[str, Consumer] = {}

    def _breach(self, invariant: Invariant, what: str) -> None:
        self.breaches.append(Breach(invariant, self._world.kernel.seconds, what))

    # --- the log ------------------------------------------------------------------------------------

    def asked(self, step: Step, process: Troubled) -> None:
        """An operator is about to change the channel."""
        self._asked[process.name] = step

    def told(self, step: Step, error: FerryError) -> None:
        """An operator was told that it did not work."""

    def acknowledged(self, entry: ChannelEntry) -> None:
        """An operator was told that a change is done."""
        self._acknowledged[entry.digest] = entry
        if not self._world.log.has(entry):
            self._breach(Invariant.ACKNOWLEDGED, f"generation {entry.generation} is not in the log")

    def written(self, entry: ChannelEntry) -> None:
        """A trusted entry was written."""
        log, now = self._world.log, self._world.kernel.seconds
        self._require_way_back(entry)
        self._require_contract(entry)
        self._ever_served.add(entry.manifest_digest)
        named = set(self._named_by_channel())
        self._named_since = {digest: self._named_since.get(digest, now) for digest in named}
        written = log.written[entry.generation]
        if any(by is written for by in log.taken_back.values()):
            patience = 2.5 * self._world.script.poll
            self._world.kernel.at(now + patience, lambda: self._require_rollback_seen(written))

    def restored(self) -> None:
        """A backup took the place of everything."""
        log = self._world.log
        self._acknowledged = {digest: entry for digest, entry in self._acknowledged.items() if log.has(entry)}
        self._named_since = {}
        for consumer in self._world.consumers:
            consumer.reported = {}
            if consumer.lives:
                seen = consumer.follower.newest
                consumer.lost_log |= seen is not None and not log.has(seen)
                consumer.lost_log |= consumer.follower.handled > max(log.written, default=0)

    def _require_way_back(self, entry: ChannelEntry) -> None:
        log = self._world.log
        for older in islice(log.way_back(entry), WAY_BACK):
            by = log.taken_back.get(older.digest)
            if by is not None:
                self._breach(
                    Invariant.WAY_BACK,
                    f"from generation {entry.generation} it leads to {older.generation} "
                    f"(version {older.version}), which generation {by.entry.generation} took back",
                )
                return

    def _require_contract(self, entry: ChannelEntry) -> None:
        log = self._world.log
        before = log.written.get(entry.generation - 1)
        step = self._asked.get(entry.actor)
        if before is None or before.forged or step is None or step.allow:
            return
        old, new = log.facts_of(before.entry), log.facts_of(entry)
        served_before = entry.manifest_digest in self._ever_served
        if entry.operation is Operation.ROLLBACK and served_before:
            return
        if old is not None and new is not None and (fault := contract_break(old, new)):
            self._breach(
                Invariant.CONTRACT_GATE,
                f"{step.act} put version {entry.version} in the place of {before.entry.version}: {fault}",
            )

    # --- waiting ------------------------------------------------------------------------------------

    def waited(self, entry: ChannelEntry, looked_at: float) -> None:
        """`--wait` said that every live consumer serves an entry."""
        for consumer in self._world.consumers:
            process = consumer.process
            is_known = process.first_beat_at < looked_at
            is_heard = process.beat_at > max(looked_at - 2 * self._world.script.beat, self._world.restored_at)
            if consumer.lives and is_known and is_heard and not self._reached(consumer, entry):
                self._breach(
                    Invariant.WAIT_TRUE,
                    f"{process.name} does not serve generation {entry.generation} (version "
                    f"{entry.version}) but {_describe(consumer.current)}",
                )

    def waited_in_vain(self, entry: ChannelEntry, began: float, error: WaitTimeoutError) -> None:
        """`--wait` ran out."""
        world = self._world
        if "after" not in str(error) or world.restored_at >= began:
            return
        for consumer in world.consumers:
            process = consumer.process
            # by now it has been silent for long enough
            gone = process.died_at < world.kernel.seconds - 3.5 * world.script.beat
            if not gone and not (consumer.lives and self._reached(consumer, entry)):
                return
            if process.last_suspended > began:
                return
        self._breach(Invariant.WAIT_ENDS, f"every consumer that lives serves it, but {error}")

    def _reached(self, consumer: Consumer, entry: ChannelEntry) -> bool:
        """Whether it served that very entry, what else the same number named alike, or something newer."""
        log, wanted = self._world.log, (entry.generation, entry.manifest_digest, entry.canary)
        return any(
            (served.generation, served.manifest_digest, served.canary) == wanted
            or (served.generation > entry.generation and log.has(served))
            for served in consumer.served.values()
        )

    # --- consumers ----------------------------------------------------------------------------------

    def beat(self, consumer: Consumer, key: str) -> None:
        """A consumer wrote its heartbeat."""
        other = self._writers.get(key)
        if other is not None and other is not consumer and other.lives and consumer.lives:
            self._breach(
                Invariant.HEARTBEAT, f"{key} is that of {other.process.name} and {consumer.process.name}"
            )
        self._writers[key] = consumer
        now, serves = self._world.kernel.seconds, consumer.current
        named = set() if serves is None else _files(serves.entry)
        consumer.reported = {digest: consumer.reported.get(digest, now) for digest in named}

    def swapped(self, consumer: Consumer, before: ServedModel | None, served: ServedModel) -> None:
        """A consumer begins to serve something."""
        if before is not None and served.generation < before.generation:
            consumer.left = before
        else:
            self._require_choice(consumer, served)
        by = self._world.log.taken_back.get(served.entry.digest)
        if by is None:
            return
        newest = consumer.follower.newest
        late = self._world.kernel.seconds - by.at
        if newest is not None and newest.generation > served.generation:
            self._breach(
                Invariant.WAY_BACK,
                f"{consumer.process.name} {'looked' if before is None else 'fell'} back to generation "
                f"{served.generation} (version {served.version}), which generation {by.entry.generation} "
                "took back",
            )
        elif late > self._world.script.poll and consumer.process.last_suspended < by.at:
            self._breach(
                Invariant.ROLLBACK_KEPT,
                f"{consumer.process.name} begins to serve version {served.version}, which was rolled back "
                f"{late:g} s ago",
            )

    def rejected(self, consumer: Consumer, refusal: Refusal) -> None:
        """A consumer refused something for good."""
        log = self._world.log
        written = log.written.get(refusal.target.generation)
        if written is not None:
            consumer.rejected[written.entry.digest] = refusal
        if refusal.gate in {REGRESSION, "signature"}:
            return
        who = f"{consumer.process.name} refused generation {refusal.target.generation}"
        if refusal.gate == "contract":
            self._require_permission(consumer, refusal, who)
            return
        whole = refusal.target.digest not in self._world.damaged
        if whole and self._world.store.has(keys.blob(refusal.target.digest)):
            self._breach(Invariant.NO_FINAL_REFUSAL, f"{who} by gate {refusal.gate}: {refusal.reason}")

    def _require_permission(self, consumer: Consumer, refusal: Refusal, who: str) -> None:
        serves = consumer.current
        if serves is None or consumer.lost_log:
            return
        newer = self._world.log.between(serves.generation, refusal.target.generation)
        allowed = [entry.generation for entry in newer if entry.contract_change]
        if allowed:
            self._breach(
                Invariant.PERMISSION,
                f"{who} for its contract, and serves generation {serves.generation}; generation "
                f"{allowed[-1]} allowed it",
            )

    def _require_choice(self, consumer: Consumer, served: ServedModel) -> None:
        left, consumer.left = consumer.left, None
        if left is None or left.manifest.digest != served.manifest.digest:
            return
        log = self._world.log
        chosen = any(
            entry.manifest_digest == served.manifest.digest and log.chooses(entry)
            for entry in log.between(left.generation, served.generation)
        )
        if not chosen:
            self._breach(
                Invariant.LEFT,
                f"{consumer.process.name} left version {left.version} of generation {left.generation}, and "
                f"serves it again by generation {served.generation}, a {_kind(served.entry)}",
            )

    def _require_rollback_seen(self, rollback: Written) -> None:
        world = self._world
        head = world.log.trusted_head
        if head is None or not world.log.has(rollback.entry):
            return
        for consumer in world.consumers:
            process, serves = consumer.process, consumer.current
            calm_since = max(process.hit, process.last_suspended, consumer.began_at)
            if not consumer.lives or serves is None or consumer.lost_log or self._may_differ(consumer, head):
                continue
            if calm_since < rollback.at - 35 and world.log.taken_back.get(serves.entry.digest) is rollback:
                self._breach(
                    Invariant.ROLLBACK_SEEN,
                    f"{process.name} serves version {serves.version} "
                    f"{world.kernel.seconds - rollback.at:g} s after it was rolled back",
                )

    def _may_differ(self, consumer: Consumer, head: Written) -> bool:
        """Whether a consumer has a reason not to serve the head; a wrong one breaks another invariant."""
        entry = head.entry
        if entry.digest in consumer.rejected:
            return True
        named = {entry.blob_digest, *((entry.canary.blob_digest,) if entry.canary else ())}
        return bool(named & self._world.damaged)

    # --- garbage ------------------------------------------------------------------------------------

    def deleted(self, digest: str) -> None:
        """The file with a digest is about to be deleted."""
        now = self._world.kernel.seconds
        head = self._world.log.trusted_head
        if head is not None and digest in _files(head.entry):
            self._breach(
                Invariant.IN_USE, f"{digest[:15]} is named by generation {head.entry.generation}, the head"
            )
        elif now - self._named_since.get(digest, now) > SETTLED:
            self._breach(Invariant.IN_USE, f"{digest[:15]} is the next step back")
        for consumer in self._world.consumers:
            if consumer.lives and now - consumer.reported.get(digest, now) > SETTLED:
                self._breach(Invariant.IN_USE, f"{digest[:15]} is served by {consumer.process.name}")

    def _named_by_channel(self) -> Iterator[str]:
        head = self._world.log.trusted_head
        if head is not None:
            yield from _files(head.entry)
            first = next(self._world.log.way_back(head.entry), None)
            if first is not None:
                yield first.blob_digest

    # --- the end ------------------------------------------------------------------------------------

    def ended(self) -> None:
        """Judge what must hold once all is calm."""
        for entry in self._acknowledged.values():
            if not self._world.log.has(entry):
                self._breach(Invariant.ACKNOWLEDGED, f"generation {entry.generation} is lost")
        for consumer in self._world.consumers:
            if consumer.lives:
                self._require_convergence(consumer)
                self._require_linear(consumer)
        for manifest in self._world.log.manifests.values():
            digest = manifest.blob.digest
            if not self._world.store.has(keys.blob(digest)) and not self._world.store.has(
                garbage.collected_key(digest)
            ):
                self._breach(
                    Invariant.COLLECTED_TOLD,
                    f"the file of version {manifest.version} is gone, and nothing says why",
                )

    def _require_convergence(self, consumer: Consumer) -> None:
        head, serves = self._world.log.trusted_head, consumer.current
        if head is None or self._may_differ(consumer, head):
            return
        if serves is not None and serves.entry.digest == head.entry.digest:
            return
        left = consumer.left
        if left is not None and left.manifest.digest == head.entry.manifest_digest:
            return  # until somebody chooses it anew, which `LEFT` judges
        self._breach(
            Invariant.CONVERGES,
            f"{consumer.process.name} serves {_describe(serves)}, and the head is generation "
            f"{head.entry.generation} (version {head.entry.version}); {consumer.failure}",
        )

    def _require_linear(self, consumer: Consumer) -> None:
        reads = consumer.process.requests[Place.ENTRY]
        allowed = 4 * len(self._world.log.written) + 10 * consumer.polls + 100
        if reads > allowed:
            self._breach(
                Invariant.LINEAR,
                f"{consumer.process.name} read {reads} entries of a log of {len(self._world.log.written)} in "
                f"{consumer.polls} polls that went well",
            )


def _files(entry: ChannelEntry) -> set[str]:
    return {entry.blob_digest, *((entry.canary.blob_digest,) if entry.canary else ())}


def _describe(served: ServedModel | None) -> str:
    return "nothing" if served is None else f"generation {served.generation} (version {served.version})"


def _kind(entry: ChannelEntry) -> str:
    return f"{entry.operation} with a canary" if entry.canary else str(entry.operation)
