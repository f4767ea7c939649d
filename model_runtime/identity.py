"""What a consumer is called among all consumers of a registry."""

from __future__ import annotations

import os
import re
import socket


def consumer_name(role: str) -> str:
    """A name for this process among all consumers: role, host and process id."""
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-") or "host"
    return f"{role}-{host[:40]}-{os.getpid()}"
