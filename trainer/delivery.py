"""From an exported model to a version that serves: publish once, then promote by policy.

One attempt may fail anywhere, and the next goes on from what the store shows. A version carries the name of
the export it was made from, so that neither a lost answer nor a crash publishes one twice.
"""

from __future__ import annotations

from typing import Any

import structlog

from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import ChannelHeldError, ConflictError, NotFoundError, UntrustedAnswerError
from ferryline.registry.inspection import Inspector
from ferryline.registry.refusals import PUBLISH
from ferryline.streams.pipeline import Pipeline
from ferryline.trainer.candidate import EXPORT_LABEL, RUN_LABEL, ExportedModel
from ferryline.trainer.metrics import TrainerMetrics
from ferryline.trainer.promotion import Candidate, Verdict, decide
from ferryline.trainer.serving_view import ServingView, accuracy_of

_PROMOTE_ATTEMPTS = 5
_LOOK_BACK = 20  # versions of this run that may have been published without our knowing


class Delivery:
    """Publishes and promotes the versions of one run of a pipeline."""

    def __init__(
        self,
        registry: Registry,
        pipeline: Pipeline,
        *,
        run: str,
        last_version: int | None,
        metrics: TrainerMetrics,
        inspect: Inspector,
        log: Any = None,
    ) -> None:
        self._registry = registry
        self._inspect = inspect
        self._pipeline = pipeline
        self._run = run
        self._metrics = metrics
        self._log = log or structlog.get_logger()
        self._last_version = last_version
        self._doubtful = True  # a crash may have come between a publish and the state that knows of it
        self._serving = ServingView(registry, pipeline, log=self._log)
        self._pause_told: int | None = None

    @property
    def last_version(self) -> int | None:
        """The newest version this run published."""
        return self._last_version

    def deliver(self, model: ExportedModel) -> Manifest:
        """Publish `model` unless that was done already, and promote it if the policy says so.

        Raises:
            RefusedError: the load gate refuses the file, as every consumer would.
            GateUnavailableError: the gate could not judge it; try again.
            StoreError: the store did not do its part; try again.
            ConflictError: too many others write at once; try again.
        """
        manifest = self._published_already(model) if self._doubtful else None
        if manifest is None:
            self._doubtful = True
            manifest = self._publish(model)
        self._last_version = manifest.version
        self._metrics.version.set(manifest.version)
        self._promote(manifest)
        self._doubtful = False
        return manifest

    def _publish(self, model: ExportedModel) -> Manifest:
        ledger = self._registry.refusals(self._pipeline.model)
        with ledger.recording(consumer=PUBLISH, data=model.data):
            facts = self._inspect(model.data, model.training.golden)
        training = model.training.model_copy(update={"parent_version": self._last_version})
        manifest = self._registry.publish(self._pipeline.model, model.data, facts, training)
        self._log.info(
            "published",
            version=manifest.version,
            records=model.records,
            accuracy=_rounded(model.accuracy),
            bytes=manifest.blob.size,
            dtype=model.precision,
        )
        return manifest

    def _published_already(self, model: ExportedModel) -> Manifest | None:
        """Look through the versions since the last one known for those of this run."""
        versions = self._registry.versions(self._pipeline.model)
        known = self._last_version or 0
        for number in versions.numbers(after=max(known - 1, 0))[-_LOOK_BACK:]:
            try:
                manifest = versions.get(number)
            except (UntrustedAnswerError, NotFoundError) as error:  # at worst it is published once more
                self._log.warning(
                    "version_unreadable", version=number, error=str(error), remedy="ferry verify"
                )
                continue
            if manifest.labels.get(RUN_LABEL) != self._run:
                continue
            self._last_version = manifest.version
            if manifest.labels.get(EXPORT_LABEL) == model.export_id:
                return manifest
        return None

    def _promote(self, manifest: Manifest) -> ChannelEntry | None:
        for _ in range(_PROMOTE_ATTEMPTS):
            head = self._serving.head()
            serving = self._serving.of(head)
            verdict = decide(self._pipeline.promotion, _as_candidate(manifest), serving)
            if not verdict.promote:
                self._tell_why_not(manifest, verdict, head)
                return None
            try:
                return self._promote_after(head, manifest, verdict)
            except ConflictError:
                continue  # someone else was first: look again at what serves now
            except ChannelHeldError:
                continue  # held, or with a canary, since we looked; the next look says so
        self._log.warning("not_promoted", version=manifest.version, reason="the channel changes too often")
        return None

    def _promote_after(self, head: ChannelEntry | None, manifest: Manifest, verdict: Verdict) -> ChannelEntry:
        entry = self._registry.promote(
            manifest.model,
            manifest.version,
            self._pipeline.channel,
            expect=head.generation if head else 0,
            automatic=True,
            reason=verdict.reason,
        )
        self._metrics.generation.set(entry.generation)
        self._log.info(
            "promoted",
            version=entry.version,
            channel=entry.channel,
            generation=entry.generation,
            reason=verdict.reason,
        )
        return entry

    def _tell_why_not(self, manifest: Manifest, verdict: Verdict, head: ChannelEntry | None) -> None:
        if head is None or not (head.held or head.canary):
            self._log.info("not_promoted", version=manifest.version, reason=verdict.reason)
        elif self._pause_told != head.generation:  # it lasts for many versions: say it once
            self._pause_told = head.generation
            self._tell_pause(manifest, head)

    def _tell_pause(self, manifest: Manifest, head: ChannelEntry) -> None:
        channel = f"{manifest.model}:{self._pipeline.channel}"
        event, remedy = "channel_held", f"ferry release {channel}"
        canary: dict[str, Any] = {}
        if not head.held and head.canary is not None:
            event = "canary_running"
            remedy = f"ferry promote {manifest.model}@{head.canary.version}, or ferry rollback {channel}"
            canary = {"canary": head.canary.version, "percent": head.canary.percent}
        self._log.warning(
            event,
            channel=self._pipeline.channel,
            version=head.version,
            **canary,
            by=head.actor,
            why=head.reason,
            not_promoted=manifest.version,
            remedy=remedy,
        )


def _as_candidate(manifest: Manifest) -> Candidate:
    records = manifest.lineage.records if manifest.lineage else 0
    return Candidate(manifest.version, records, accuracy_of(manifest), manifest.digest)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
