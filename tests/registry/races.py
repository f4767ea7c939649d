"""Processes and people that race for one channel: one winner for each generation, no hole, no loss.

Subclass `Races` and give a `store_url` fixture.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson

from ferryline.registry import Registry, keys
from ferryline.registry.stores import open_store
from tests.registry import racers
from tests.registry.histories import facts
from tests.registry.log_invariants import Attempt, Outcome, log_of, violations
from tests.registry.racers import MODEL, RACERS, Race
from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

ROUNDS = sized(20, 200)
FERRY = str(Path(sys.executable).with_name("ferry"))
PEOPLE = sized(4, 6)
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class Races:
    unguarded_rounds = ROUNDS
    publishing_rounds = sized(3, 8)
    peoples_rounds = sized(1, 3)

    def test_one_process_wins_each_generation(self, store_url: str) -> None:
        registry = Registry(open_store(store_url), actor="judge")
        publish_two(registry)
        told = racers.in_processes(racers.promote, race_on(store_url, ROUNDS))
        attempts = [attempt for each in told for attempt in each]
        require_one_winner_each(attempts, ROUNDS)
        require_whole(registry, attempts)

    def test_processes_that_expect_nothing_lose_no_generation_either(self, store_url: str) -> None:
        registry = Registry(open_store(store_url), actor="judge")
        publish_two(registry)
        told = racers.in_processes(racers.promote, race_on(store_url, self.unguarded_rounds, expecting=False))
        attempts = [attempt for each in told for attempt in each]
        # a racer that looks late may win as well, the next generation
        done = sum(attempt.outcome is Outcome.DONE for attempt in attempts)
        assert done >= self.unguarded_rounds
        require_whole(registry, attempts)

    def test_racing_publishers_leave_no_hole_and_every_file_is_there(self, store_url: str) -> None:
        told = racers.in_processes(racers.publish, race_on(store_url, self.publishing_rounds))
        manifests = {manifest.version: manifest for each in told for manifest in each}
        versions = Registry(open_store(store_url), actor="judge").versions(MODEL)
        expected = list(range(1, RACERS * self.publishing_rounds + 1))
        assert versions.numbers() == sorted(manifests) == expected
        for number, manifest in manifests.items():
            assert versions.get(number).digest == manifest.digest
            assert versions.load(manifest).startswith(b"racer ")

    def test_of_people_who_promote_at_once_one_is_done_and_the_others_are_told(self, store_url: str) -> None:
        registry = Registry(open_store(store_url), actor="judge")
        publish_two(registry)
        for generation in range(self.peoples_rounds):
            rivals = [_promote(store_url, generation, f"rival-{number}") for number in range(PEOPLE)]
            told = [rival.communicate(timeout=DEADLINE) for rival in rivals]
            codes = [rival.returncode for rival in rivals]
            assert sorted(codes) == [0] + [4] * (PEOPLE - 1), told
            winner = registry.channel(MODEL).require_head()
            for code, (output, complaint) in zip(codes, told, strict=True):
                if code == 0:
                    assert orjson.loads(output)["generation"] == winner.generation == generation + 1
                else:
                    assert complaint.startswith("error: ")
                    assert complaint.count("\n") == 1
                    assert f"by {winner.actor} at " in complaint
        history = registry.channel(MODEL).history()
        assert [entry.generation for entry in history] == list(range(1, self.peoples_rounds + 1))


def _promote(store_url: str, expected: int, actor: str) -> subprocess.Popen[str]:
    """Start `ferry promote` as a process of its own."""
    return subprocess.Popen(
        [FERRY, "promote", f"{MODEL}@1", "--expect", str(expected), "-o", "json"],
        env={**os.environ, "FERRY_STORE": store_url, "FERRY_ACTOR": actor},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def race_on(url: str, rounds: int, *, expecting: bool = True) -> Race:
    """Returns a race on a store, whose credentials the racers inherit."""
    environ = tuple((name, os.environ[name]) for name in CREDENTIALS if name in os.environ)
    return Race(url, rounds, expecting, environ)


def publish_two(registry: Registry) -> None:
    """Publish the two versions that racers promote."""
    for number in (1, 2):
        registry.publish(MODEL, b"model %d" % number, facts())


def require_one_winner_each(attempts: list[Attempt], rounds: int) -> None:
    """Require that each round had one winner, and that all others were told of a conflict."""
    won = sorted(attempt.entry.generation for attempt in attempts if attempt.entry is not None)
    assert won == list(range(1, rounds + 1))
    lost = [attempt for attempt in attempts if attempt.outcome is Outcome.CONFLICT]
    assert len(lost) == rounds * (RACERS - 1)


def require_whole(registry: Registry, attempts: list[Attempt]) -> None:
    """Require that the log holds what was acknowledged, each once, and nothing else."""
    assert violations(log_of(registry.store, keys.channel(MODEL, "production")), attempts) == []
    won = [attempt.entry for attempt in attempts if attempt.entry is not None]
    assert len(list(registry.channel(MODEL).history())) == len(won)
    head = registry.channel(MODEL).require_head()
    assert head.digest == max(won, key=lambda entry: entry.generation).digest
