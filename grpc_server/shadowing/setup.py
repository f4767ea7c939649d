"""The shadows of a server: made from its settings, run and told of together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.settings import ServerSettings
from ferryline.grpc_server.shadowing.sampling import Shadow
from ferryline.grpc_server.shadowing.telling import shadow_readiness
from ferryline.grpc_server.shadowing.worker import ShadowWorker

BLOCK = "ferry_shadow"
"""Where readiness tells of shadows."""


class Shadows:
    """All of them, by the model whose requests they run again.

    Args:
        settings: which there are.
        channels: what is followed; theirs are among it.
    """

    def __init__(self, settings: ServerSettings, channels: Iterable[FollowedChannel]) -> None:
        followed = {str(channel): channel for channel in channels}
        limits = settings.shadow_limits()
        self.by_model: Mapping[str, Shadow] = {
            policy.model: Shadow(policy, followed[str(policy)], limits) for policy in settings.shadows()
        }

    def readiness(self) -> dict[str, Any]:
        """What there is to say of them, as JSON; nothing where there are none."""
        return {BLOCK: shadow_readiness(self.by_model.values())} if self.by_model else {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run requests again meanwhile, on a thread that is there only if there is a shadow."""
        if not self.by_model:
            yield
            return
        worker = ShadowWorker(tuple(self.by_model.values()))
        worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(worker.stop)
