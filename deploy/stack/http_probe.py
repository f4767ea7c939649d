"""One quick HTTP GET to a server that may not be up yet."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: most commands ask no server
    import httpx

_TIMEOUT_S = 2.0


def get(url: str) -> httpx.Response | None:
    """The answer to a GET, whatever its status; None if there is none within two seconds."""
    import httpx

    try:
        return _client().get(url)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


@functools.cache
def _client() -> httpx.Client:
    import httpx

    # made once: loading certificates takes longer than the probe; a proxy has no business with local servers
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(timeout=_TIMEOUT_S, trust_env=False, limits=limits)
