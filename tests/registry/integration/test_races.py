"""Sixteen processes that race for one channel on real stores: one winner per generation, no hole, no loss."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from registry import Registry, keys
from registry.stores import open_store
from registry.stores.memory import MemoryStore
from tests.registry import racers
from tests.registry.histories import facts
from tests.registry.log_invariants import Attempt, Outcome, log_of, violations
from tests.registry.racers import MODEL, RACERS, Race

# seconds on a free machine; sixteen processes on a busy one take their time
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROUNDS = 200
PUBLISHING_ROUNDS = 8
FERRY = str(Path(sys.executable).with_name("ferry"))
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(params=["folder", "minio"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return (tmp_path / "registry").as_uri()
    url = request.getfixturevalue("minio_store_url")
    assert isinstance(url, str)
    return url


def race_on(url: str, rounds: int, *, expecting: bool = True) -> Race:
    environ = tuple((name, os.environ[name]) for name in CREDENTIALS if name in os.environ)
    return Race(url, rounds, expecting, environ)


def publish_two(registry: Registry) -> None:
    for number in (1, 2):
        registry.publish(MODEL, b"model %d" % number, facts())


def require_one_winner_each(attempts: list[Attempt], rounds: int) -> None:
    won = sorted(attempt.entry.generation for attempt in attempts if attempt.entry is not None)
    assert won == list(range(1, rounds + 1))
    lost = [attempt for attempt in attempts if attempt.outcome is Outcome.CONFLICT]
    assert len(lost) == rounds * (RACERS - 1)


def require_whole(registry: Registry, attempts: list[Attempt]) -> None:
    assert violations(log_of(registry.store, keys.channel(MODEL, "production")), attempts) == []
    won = [attempt.entry for attempt in attempts if attempt.entry is not None]
    assert len(list(registry.channel(MODEL).history())) == len(won)
    head = registry.channel(MODEL).require_head()
    assert head.digest == max(won, key=lambda entry: entry.generation).digest


def test_one_of_sixteen_processes_wins_each_generation(store_url: str) -> None:
    registry = Registry(open_store(store_url), actor="judge")
    publish_two(registry)
    told = racers.in_processes(racers.promote, race_on(store_url, ROUNDS))
    attempts = [attempt for each in told for attempt in each]
    require_one_winner_each(attempts, ROUNDS)
    require_whole(registry, attempts)


def test_processes_that_expect_nothing_lose_no_generation_either(store_url: str) -> None:
    registry = Registry(open_store(store_url), actor="judge")
    publish_two(registry)
    # every loser goes all the way to the write, which costs a server four times as much
    rounds = ROUNDS if store_url.startswith("file:") else ROUNDS // 4
    told = racers.in_processes(racers.promote, race_on(store_url, rounds, expecting=False))
    attempts = [attempt for each in told for attempt in each]
    # a racer that looks late may win as well, the next generation
    assert sum(attempt.outcome is Outcome.DONE for attempt in attempts) >= rounds
    require_whole(registry, attempts)


def test_one_of_sixteen_threads_wins_each_generation_in_memory() -> None:
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


def test_racing_publishers_leave_no_hole_and_every_file_is_there(store_url: str) -> None:
    told = racers.in_processes(racers.publish, race_on(store_url, PUBLISHING_ROUNDS))
    manifests = {manifest.version: manifest for each in told for manifest in each}
    versions = Registry(open_store(store_url), actor="judge").versions(MODEL)
    assert versions.numbers() == sorted(manifests) == list(range(1, RACERS * PUBLISHING_ROUNDS + 1))
    for number, manifest in manifests.items():
        assert versions.get(number).digest == manifest.digest
        assert versions.load(manifest).startswith(b"racer ")


def test_of_people_who_promote_at_once_one_is_done_and_the_others_exit_with_conflict(store_url: str) -> None:
    registry = Registry(open_store(store_url), actor="judge")
    publish_two(registry)
    people, rounds = 6, 3
    for generation in range(rounds):
        command = [FERRY, "promote", f"{MODEL}@1", "--expect", str(generation), "-o", "json"]
        running = [
            subprocess.Popen(
                command,
                env=os.environ | {"FERRY_STORE": store_url},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(people)
        ]
        ended = [(process.communicate(timeout=60), process.returncode) for process in running]
        assert sorted(code for _, code in ended) == [0] + [4] * (people - 1), ended
        for (output, complaint), code in ended:
            if code == 0:
                assert orjson.loads(output)["generation"] == generation + 1
            else:
                assert complaint.startswith("error: ")
                assert complaint.count("\n") == 1
    assert [entry.generation for entry in registry.channel(MODEL).history()] == [1, 2, 3]
