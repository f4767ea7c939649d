"""Many small reads at a time, their results in order and not many of them in memory at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ferryline.registry.log import READERS

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_AHEAD = 4


def in_order(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, readers: int = READERS
) -> Iterator[ResultT]:
    """`function` of every item, in order, `readers` at a time.

    What has not begun when an item raises, or when nobody wants the rest, is not begun any more. One reader
    is this thread itself.
    """
    if readers <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix="read")
    under_way: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > readers * _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
