"""Waits until the store answers, and says so ever less often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from ferryline.registry.errors import FerryError, MissingRightError, RefusedError

ResultT = TypeVar("ResultT")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_FIRST_COMPLAINT = 5.0
_LAST_COMPLAINT = 60.0

log = structlog.get_logger(__name__)


def until_it_works(call: Callable[[], ResultT], what: str) -> ResultT:
    """What `call` gives, tried again as long as the fault may pass. Records wait in Kafka meanwhile.

    Args:
        call: asks the store.
        what: what they wait for, for the log.

    Raises:
        MissingRightError: these credentials may not do it.
        RefusedError: it will never be had.
    """
    pause, begin, complaint = _FIRST_PAUSE, time.monotonic(), _FIRST_COMPLAINT
    while True:
        try:
            return call()
        except (MissingRightError, RefusedError):
            raise
        except FerryError as error:
            waited = time.monotonic() - begin
            if waited >= complaint:
                log.warning("records wait in Kafka", until=what, seconds=round(waited), reason=str(error))
                complaint = waited + min(waited, _LAST_COMPLAINT)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
