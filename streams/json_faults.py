"""Why bytes are no JSON; off the fast path, so it may look twice."""

from __future__ import annotations

import json
from typing import NoReturn

from ferryline.streams.rejections import RecordFault, RejectReason


class _NonFiniteError(Exception):
    """The text has a NaN or Infinity where a number belongs, as Python's and numpy's writers put it."""


def explain_invalid_json(value: bytes, fault: str) -> RecordFault:
    """What is wrong with `value`, which a strict parser refused with `fault`.

    RFC 8259 has no NaN, yet many writers produce it; its owner is told so rather than "invalid JSON".
    """
    try:
        json.loads(value, parse_constant=_refuse)
    except _NonFiniteError as found:
        return RecordFault(RejectReason.NOT_FINITE, f"a number is {found}")
    except (ValueError, RecursionError):
        pass  # the strict parser's words are the better ones
    return RecordFault(RejectReason.INVALID_JSON, fault)


def _refuse(constant: str) -> NoReturn:
    raise _NonFiniteError(constant)
