"""Makes verified files ready to serve, in this process."""

from __future__ import annotations

from pathlib import Path

from ferryline.model_runtime.follower.stages import vanished
from ferryline.model_runtime.golden import check_golden_rows, warm_up
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import RefusedError


class LocalLoader:
    """Loads with ONNX Runtime and runs once: the `Loader` of whoever answers by itself."""

    def load(self, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:  # noqa: ARG002 - the protocol's form
        """See `Loader`."""
        try:
            return OnnxSession(path)
        except RefusedError as error:
            if path.exists():
                raise
            # no fault of the model's: another consumer pruned the cache, or someone emptied it
            raise vanished(path) from error

    def warm(self, session: OnnxSession, manifest: Manifest) -> None:
        """See `Loader`."""
        if manifest.golden is None:
            warm_up(session, manifest)
        else:
            check_golden_rows(session, manifest, manifest.golden)
