"""Threads that race for one channel of a store in memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from ferryline.registry import Registry
from ferryline.registry.stores.memory import MemoryStore
from tests.registry import racers
from tests.registry.racers import RACERS, Race
from tests.registry.races import ROUNDS, publish_two, require_one_winner_each, require_whole


def test_one_thread_wins_each_generation() -> None:
    store = MemoryStore()
    registry = Registry(store, actor="judge")
    publish_two(registry)
    meeting = threading.Barrier(RACERS)
    race = Race(store.url, ROUNDS)
    with ThreadPoolExecutor(RACERS) as pool:
        told = list(pool.map(lambda racer: racers.promote(race, racer, store, meeting), range(RACERS)))
    attempts = [attempt for each in told for attempt in each]
    require_one_winner_each(attempts, ROUNDS)
    require_whole(registry, attempts)
