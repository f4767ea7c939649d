"""What a consumer is called among all consumers of a registry."""

from __future__ import annotations

import functools
import os
import re
import socket
import uuid

_LONGEST = 63  # characters of a name in the registry
_INSTANCE_DIGITS = 12


def consumer_name(role: str) -> str:
    """Returns the name of this process among all consumers: role, host and a random instance id.

    Host and process id alone would do for no one who runs in pods, where every process has id 1 and long host
    names are cut. The name is the same at each call, and another in each process and after each start.
    """
    instance = _instance_id(os.getpid())
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-") or "host"
    room = _LONGEST - len(role) - len(instance) - 2
    return f"{role}-{host[:room]}-{instance}"


@functools.cache
def _instance_id(_process: int) -> str:
    # by process id, so that a fork has an id of its own
    return uuid.uuid4().hex[:_INSTANCE_DIGITS]
