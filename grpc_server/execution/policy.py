"""What operators decide about execution: how batches form, and how many requests may wait."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ferryline.registry.errors import UsageError

SHORTEST_RETRY = 0.05
LONGEST_RETRY = 60.0
LARGEST_BATCH = 65_536
LONGEST_DELAY_US = 10_000_000

_FORM = re.compile(r"(?P<model>[^=\s]+)=(?P<size>\d{1,6})(?::(?P<delay>\d{1,8})(?P<unit>us|ms)?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How batches of one model form.

    Args:
        max_batch_size: the most rows that run together; a larger request runs alone.
        max_queue_delay_us: microseconds that a request waits for others; with 0 those that are there when the
            event loop comes round run together.
    """

    max_batch_size: int
    max_queue_delay_us: int = 0

    @property
    def delay(self) -> float:
        """The longest wait in seconds."""
        return self.max_queue_delay_us / 1e6


UNBATCHED = BatchPolicy(max_batch_size=1)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait.

    Args:
        requests: requests of one model.
        size: bytes of input tensors, of all models together.
    """

    requests: int = 1000
    size: int = 256 * 2**20

    def admit(self, size: int, *, waiting: int, waiting_size: int) -> bool:
        """Whether a request of `size` bytes may wait.

        Args:
            size: its bytes.
            waiting: requests of its model that wait.
            waiting_size: bytes that wait in this process.

        Returns:
            Yes within both bounds, and whenever nothing of the model waits: no model's queue can be kept
            empty by another's, and no request is too large for ever.
        """
        return waiting == 0 or (waiting < self.requests and waiting_size + size <= self.size)


@dataclass(frozen=True, slots=True)
class ExecutionPolicy:
    """All of it.

    Args:
        inline_ns: a run that is expected to take less is done on the event loop.
        threads: how many longer runs are under way at once.
        limits: what may wait for them.
        batching: the models whose requests run together.
    """

    inline_ns: int = 1_000_000
    threads: int = 2
    limits: QueueLimits = QueueLimits()
    batching: Mapping[str, BatchPolicy] = field(default_factory=dict)


def retry_after(waiting: int, seconds_each: float) -> float:
    """Seconds until a queue that is full now has been worked off, within reason.

    Args:
        waiting: the requests in it.
        seconds_each: how long one of them took lately, those at the same time taken into account.
    """
    return min(max(waiting * seconds_each, SHORTEST_RETRY), LONGEST_RETRY)


def parse_batching(texts: Sequence[str]) -> dict[str, BatchPolicy]:
    """Policies by model, from `MODEL=SIZE` and `MODEL=SIZE:DELAY` with the delay in us (or ms).

    Raises:
        UsageError: one is of no such form, out of range, or a model is named twice.
    """
    found: dict[str, BatchPolicy] = {}
    for text in texts:
        model, policy = _parse(text)
        if model in found:
            raise UsageError(f"batching of model {model} is set twice; set it once")
        found[model] = policy
    return found


def _parse(text: str) -> tuple[str, BatchPolicy]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"batching {text!r} is not of the form MODEL=SIZE:DELAY, such as digits=32:500us")
    size, delay = int(match["size"]), int(match["delay"] or 0)
    delay *= 1000 if match["unit"] == "ms" else 1
    if not 1 <= size <= LARGEST_BATCH:
        raise UsageError(f"batching {text!r} asks for batches of {size} rows; use 1 to {LARGEST_BATCH}")
    if delay > LONGEST_DELAY_US:
        raise UsageError(f"batching {text!r} lets requests wait {delay} us; use at most {LONGEST_DELAY_US}")
    return match["model"], BatchPolicy(size, delay)
