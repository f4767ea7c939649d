"""Makes verified files ready to serve, in this process."""

from __future__ import annotations

from pathlib import Path

from ferryline.model_runtime.follower.stages import vanished
from ferryline.model_runtime.golden import check_golden_rows, warm_up
from ferryline.model_runtime.session import ExhaustedError, OnnxSession
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import FerryError, RefusedError


class LoadFailedError(FerryError):
    """A version that passed the gate could not be loaded here."""


class LocalLoader:
    """Loads with ONNX Runtime and runs once: the `Loader` of whoever answers by itself."""

    def load(self, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:  # noqa: ARG002 - the protocol's form
        """See `Loader`.

        Raises:
            ExhaustedError: this machine ran out of memory or files.
            LoadFailedError: ONNX Runtime could not load it. It could in the gate's child, so something about
                this process or machine is the reason, and the next try may succeed.
        """
        try:
            return OnnxSession(path)
        except (RefusedError, ExhaustedError) as error:
            if not path.exists():  # another consumer pruned the cache, or someone emptied it
                raise vanished(path) from error
            if isinstance(error, ExhaustedError):
                raise
            raise LoadFailedError(
                f"{manifest.model}@{manifest.version} passed the gate and could not be loaded: {error.reason}"
            ) from error

    def warm(self, session: OnnxSession, manifest: Manifest) -> None:
        """See `Loader`."""
        if manifest.golden is None:
            warm_up(session, manifest)
        else:
            check_golden_rows(session, manifest, manifest.golden)
