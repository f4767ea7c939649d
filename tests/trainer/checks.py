"""What must hold of what a trainer learnt and published, whatever happened meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from ferryline.model_runtime.facts import read_facts
from ferryline.registry.documents import Manifest


def require_sound(manifests: list[Manifest], registry: Any) -> None:
    """Every version is whole, and its lineage goes on where its parent's ends."""
    for before, after in zip([None, *manifests], manifests, strict=False):
        lineage = after.lineage
        assert lineage is not None
        ranges = (*lineage.past, *lineage.offsets)
        assert lineage.records + lineage.skipped == sum(part.end - part.first for part in ranges)
        assert read_facts(registry.versions(after.model).load(after)).outputs == after.outputs
        assert after.parent_version == (before.version if before else None)
        if before is None or before.lineage is None:
            continue
        assert lineage.records > before.lineage.records
        for earlier, later in zip(before.lineage.offsets, lineage.offsets, strict=True):
            assert (earlier.partition, earlier.first) == (later.partition, later.first)
            assert earlier.end <= later.end


def require_learnt_once(bench: Any, values: list[bytes]) -> None:
    """The scaler counted and averaged every record exactly once."""
    progress, arrays = bench.state()
    rows = np.array([orjson.loads(value)["x"] for value in values], dtype=float)
    assert progress.records == len(values)
    assert arrays["learner.scaler.n_samples_seen_"] == len(values)
    np.testing.assert_allclose(arrays["learner.scaler.mean_"], rows.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(arrays["learner.scaler.var_"], rows.var(axis=0), atol=1e-9)
    assert arrays["learner.sgd.t_"] == len(values) + 1
