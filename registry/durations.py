"""Spans of time as people write them: `90`, `90s`, `15m`, `36h`, `7d`."""

from __future__ import annotations

import math
import re

_FORM = re.compile(r"(?P<amount>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>s|m|min|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
LONGEST = 10 * 366 * 86_400
"""Seconds; beyond ten years a span is a slip, and far beyond a date cannot be written."""


def parse_duration(text: str) -> float:
    """Seconds from what a person wrote.

    Raises:
        ValueError: it is no span of time, or longer than ten years.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no span of time; write 90s, 15m, 36h or 7d")
    seconds = float(match["amount"]) * _SECONDS[match["unit"]]
    if not math.isfinite(seconds) or not 0 < seconds <= LONGEST:
        raise ValueError(f"{text!r} must be more than nothing and at most ten years")
    return seconds
