"""Ports for stacks whose parts are away for a while: nobody else takes them meanwhile."""

from __future__ import annotations

import random

from ferryline.deploy.stack.catalog import LISTENERS_OF
from ferryline.deploy.stack.ports import is_free

# neither the usual ports, which any other stack takes when it can, nor those that outgoing connections get
RANGE = range(20_000, 32_000)


def private_ports() -> dict[str, int]:
    """A free port for each listener of a stack."""
    listeners = [each.name for part in LISTENERS_OF.values() for each in part]
    free = (port for port in random.sample(RANGE, len(RANGE)) if is_free(port))
    return dict(zip(listeners, free, strict=False))
