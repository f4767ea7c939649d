"""What must hold at the end of every history, and of every word the trainer says on the way.

learnt once       no record is learnt twice, and none that an aborted transaction or nobody wrote
never skipped     each record that is still there was learnt, or rejected with a reason and counted once
loss is told      records that were gone before they were read are told, and nothing else is told to be gone
lineage           a version names what it learnt: counts, ranges that lie the right way and hold its records
publishing lives  once the faults end, the newest export is published, once, and serves as the policy says
no worse          `no_worse` lets no model that is far below the best of those before
lag               counts every partition
reasons           what the trainer gives as a reason is so
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ferryline.registry import keys
from ferryline.registry.documents import Lineage, Manifest
from ferryline.registry.errors import NotFoundError, UntrustedAnswerError
from ferryline.trainer.candidate import EXPORT_LABEL, RUN_LABEL
from ferryline.trainer.progress import Progress
from ferryline.trainer.training import Training
from tests.simulation.training.learning import idents_of
from tests.simulation.training.process import MAX_DROP, Ending, Memory, pipeline_of
from tests.simulation.training.truth import EITHER, LEARNABLE, Truth
from tests.simulation.training.world import MODEL, World

GONE_EVENTS = frozenset({"records_gone"})
"""What a trainer says where records were removed before it read them."""
OVERGROWN_IS_NOTICED = False
"""Whether a trainer notices that a log was cut back and written again while it was down.

Its state has offsets without the epochs of leaders, so it does not.
"""
_WINDOW = 10


class Listener:
    """Judges what the trainer says when it says it."""

    def __init__(self, world: World, watch: Callable[[str], None]) -> None:
        self._world = world
        self._watch = watch
        self.gone: list[dict[str, Any]] = []

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self._watch(f"{event} {fields}")
        if event in GONE_EVENTS:
            self.gone.append(fields)
            self._check_gone(fields)
        if event == "not_promoted" and "changes too often" in str(fields.get("reason")):
            self._check_changes()

    def _check_gone(self, fields: dict[str, Any]) -> None:
        partition, begin, end = fields["partition"], fields["expected"], fields["found"]
        log = self._world.records.current().get(partition)
        removed = self._world.records.lost_between(partition, begin, end) or (log and log.start >= end)
        if not removed and not self._world.changed:
            self._world.findings.append(
                f"false loss: {begin} to {end} of partition {partition} are told to be gone and never were"
            )

    def _check_changes(self) -> None:
        # in a history nobody else changes the channel while an attempt lasts, except between polls
        head = self._world.operator.channel(MODEL).head()
        if head is not None and head.canary is not None:
            self._world.findings.append("reasons: 'the channel changes too often', and a canary runs")


def judge(world: World, memory: Memory, endings: list[Ending]) -> list[str]:
    """What is wrong at the end of a history."""
    progress = Progress.model_validate_json(world.saved.progress)
    learnt = _learnt(world)
    manifests = _manifests(world, progress.run)
    found: list[str] = []
    found += _learnt_once(world, learnt)
    found += _never_skipped(world, learnt, memory, progress)
    found += _loss_is_told(world, learnt, memory)
    found += [finding for manifest in manifests for finding in _lineage(world, manifest)]
    found += _publishing_lives(world, manifests, progress, endings)
    found += _serves(world, manifests)
    found += _no_worse(world)
    found += _lag(world, learnt, memory)
    if world.history.real:
        found += _as_if_never_interrupted(world)
    return found


# --- learning -------------------------------------------------------------------------------------


def _learnt(world: World) -> list[int]:
    if world.history.real:
        return list(world.saved.learnt)
    return [int(ident) for ident in world.saved.arrays.get("learner.idents", ())]


def _learnt_once(world: World, learnt: list[int]) -> list[str]:
    found = []
    twice = [ident for ident, times in Counter(learnt).items() if times > 1]
    if twice:
        found.append(f"learnt once: learnt twice: {_places(world, twice)}")
    truths = world.records.all
    wrong = [i for i in learnt if truths[i].kind not in LEARNABLE | EITHER]
    if wrong:
        found.append(f"learnt once: not learnable and yet learnt: {_places(world, wrong)}")
    aborted = [i for i in learnt if _is_aborted(world, truths[i])]
    if aborted:
        found.append(f"learnt once: of an aborted transaction: {_places(world, aborted)}")
    return found


def _never_skipped(world: World, learnt: list[int], memory: Memory, progress: Progress) -> list[str]:
    found = []
    rejected = [ident for ident, _ in memory.rejected]
    seen = {*learnt, *rejected}
    for number, log in world.records.current().items():
        missed = [e.ident for e in log.visible() if e.ident not in seen and _is_due(world, e.ident)]
        if missed:
            found.append(f"never skipped: partition {number}: {_places(world, missed)}")
    twice = [ident for ident, times in Counter(rejected).items() if times > 1]
    if twice:
        found.append(f"never skipped: rejected twice: {_places(world, twice)}")
    wrong = [i for i in rejected if world.records.all[i].kind in LEARNABLE]
    if wrong:
        found.append(f"never skipped: rejected though learnable: {_places(world, wrong)}")
    if sum(progress.skipped.values()) != len(rejected) or progress.records != len(learnt):
        found.append(
            f"never skipped: {progress.records} learnt and {sum(progress.skipped.values())} rejected are "
            f"counted; they were {len(learnt)} and {len(rejected)}"
        )
    return found


def _loss_is_told(world: World, learnt: list[int], memory: Memory) -> list[str]:
    listener = world.told
    assert isinstance(listener, Listener)
    seen = {*learnt, *(ident for ident, _ in memory.rejected)}
    silent = [
        truth.ident
        for truth in world.records.all.values()
        if truth.removed_by == "retention"
        and world.records.is_lost(truth)
        and truth.ident not in seen
        and _is_due(world, truth.ident)
        and not any(_covers(fields, truth) for fields in listener.gone)
        and not any(_begins_after(fields, truth) for _, _, fields in world.events)
    ]
    return [f"loss is told: not told: {_places(world, silent)}"] if silent else []


def _covers(fields: dict[str, Any], truth: Truth) -> bool:
    return fields["partition"] == truth.partition and fields["expected"] <= truth.offset < fields["found"]


def _begins_after(fields: dict[str, Any], truth: Truth) -> bool:
    """Whether it was said that reading a partition, or a topic that was made anew, begins after a record."""
    begins = fields.get("begins_at", 0)
    begin = begins.get(truth.partition, 0) if isinstance(begins, dict) else begins
    return begin > truth.offset and fields.get("partition", truth.partition) == truth.partition


def _is_due(world: World, ident: int | None) -> bool:
    """Whether the learner should have read a record: it began before it."""
    assert ident is not None
    truth = world.records.all[ident]
    if truth.overgrows and not OVERGROWN_IS_NOTICED:
        return False
    return truth.offset >= world.beginnings.get((truth.topic, truth.partition), 0)


def _is_aborted(world: World, truth: Truth) -> bool:
    log = world.records.current().get(truth.partition)
    return log is not None and not truth.removed_by and truth.transaction in log.aborted


def _as_if_never_interrupted(world: World) -> list[str]:
    """The same batches learnt by one process give the same numbers, bit for bit."""
    training = Training(pipeline_of(world.history))
    with np.errstate(all="ignore"):  # numbers beyond float32 are what some records are for
        for batch in world.saved.batches:
            training.step(batch)
    found = world.saved.arrays
    differing = [
        name for name, values in training.arrays().items() if not np.array_equal(values, found[name])
    ]
    return [f"learnt once: not what one process learns of it: {', '.join(differing)}"] if differing else []


# --- versions -------------------------------------------------------------------------------------


def _manifests(world: World, run: str) -> list[Manifest]:
    """The versions of a run, those that can be read."""
    found = []
    for listed in world.memory.list(keys.versions(MODEL)):
        try:
            manifest = Manifest.decode(world.memory.get(listed.key).data, key=listed.key)
        except UntrustedAnswerError:
            continue
        if manifest.labels.get(RUN_LABEL) == run:
            found.append(manifest)
    return found


def _lineage(world: World, manifest: Manifest) -> Iterable[str]:
    lineage = manifest.lineage
    assert lineage is not None
    name = f"lineage: version {manifest.version}:"
    past = getattr(lineage, "past", ())
    for part in (*lineage.offsets, *past):
        if part.first > part.end:
            yield f"{name} first {part.first} is beyond end {part.end}"
    if world.history.real:
        return
    idents = idents_of(world.memory.get(keys.blob(manifest.blob.digest)).data)
    if lineage.records != len(idents):
        yield f"{name} says {lineage.records} records and knows {len(idents)}"
    truths = [world.records.all[ident] for ident in idents]
    if not truths:
        return
    newest = truths[-1].topic
    outside = [t.ident for t in truths if t.topic == newest and not _is_named(lineage, t)]
    if outside:
        yield f"{name} does not name {_places(world, outside)}"
    room = sum(part.end - part.first for part in lineage.offsets)
    once = {(truth.topic, truth.removed_by == "truncation") for truth in world.records.all.values()}
    if once == {(newest, False)} and lineage.records + lineage.skipped > room:
        yield f"{name} {lineage.records} records and {lineage.skipped} skipped of {room} offsets"


def _is_named(lineage: Lineage, truth: Truth) -> bool:
    return any(
        part.partition == truth.partition and part.first <= truth.offset < part.end
        for part in (*lineage.offsets, *getattr(lineage, "past", ()))
    )


def _publishing_lives(
    world: World, manifests: list[Manifest], progress: Progress, endings: list[Ending]
) -> Iterable[str]:
    labels = Counter(manifest.labels[EXPORT_LABEL] for manifest in manifests)
    twice = [label for label, times in labels.items() if times > 1]
    if twice:
        yield f"publishing lives: {len(twice)} exports are published twice"
    refused = [f for _, event, f in world.events if event in {"publish_refused", "export_refused"}]
    if world.history.real and refused and refused[-1].get("gate") == "parity":
        return  # the file would not say what the estimator says: nothing is published, and the log says why
    newest = max((m.lineage.records for m in manifests if m.lineage), default=0)
    if newest != progress.records:
        died = [repr(error) for ending in endings for error in ending.died]
        yield (
            f"publishing lives: {progress.records} records are learnt, the newest version knows {newest}"
            + (f"; a thread ended by {', '.join(died)}" if died else "")
            + (f"; {refused[-1]}" if refused else "")
        )


def _serves(world: World, manifests: list[Manifest]) -> Iterable[str]:
    if world.history.mode != "always" or not manifests:
        return
    head = world.operator.channel(MODEL).head()
    newest = max(manifest.version for manifest in manifests)
    if head is None or head.version < newest:
        serving = f"version {head.version}" if head else "nothing"
        reasons = [f.get("reason") for _, event, f in world.events if event == "not_promoted"][-1:]
        failures = [f.get("error") for _, event, f in world.events if event == "publish_failed"][-1:]
        yield f"publishing lives: {serving} serves, the newest is {newest}; {[*reasons, *failures]}"


def _no_worse(world: World) -> Iterable[str]:
    if world.history.mode != "no_worse":
        return
    promoted: list[float] = []
    for entry in world.operator.channel(MODEL).history():
        if not entry.automatic:
            promoted.clear()  # a person's choice is where it starts anew
            continue
        try:
            manifest = world.operator.versions(MODEL).get(entry.version)
        except (UntrustedAnswerError, NotFoundError):
            continue
        accuracy = manifest.evaluation.metrics.get("accuracy") if manifest.evaluation else None
        if accuracy is None:
            continue
        best = max(promoted[-_WINDOW:], default=accuracy)
        if accuracy < best - 2 * MAX_DROP:
            yield f"no worse: version {entry.version} with {accuracy:g} takes the place of {best:g}"
        promoted.append(accuracy)


def _lag(world: World, learnt: list[int], memory: Memory) -> Iterable[str]:
    lags = [f["lag"] for _, event, f in world.events if event == "training"]
    if not lags or lags[-1] is None:
        return
    seen = {*learnt, *(ident for ident, _ in memory.rejected)}
    unread = sum(
        entry.ident not in seen and _is_due(world, entry.ident)
        for log in world.records.current().values()
        for entry in log.visible()
    )
    if not unread and lags[-1]:
        yield f"lag: all was read, and the lag is {lags[-1]}"
    if unread > lags[-1]:
        yield f"lag: {unread} records were not read, and the lag is {lags[-1]}"


def _places(world: World, idents: Iterable[int | None]) -> str:
    told = []
    for ident in idents:
        truth = world.records.all[ident or 0]
        told.append(f"#{truth.ident} ({truth.kind}) at {truth.partition}:{truth.offset}")
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
