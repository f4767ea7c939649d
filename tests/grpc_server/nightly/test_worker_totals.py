"""What a supervisor keeps of its workers' counts: what one process would, and no sum goes back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest

from ferryline.grpc_server.counters import KEPT_VERSIONS, VersionCounters
from ferryline.grpc_server.workers.counting import KEPT_DEATHS, Relayed, Tally, WorkersCollector
from ferryline.grpc_server.workers.led import LedChannel
from ferryline.grpc_server.workers.messages import Counted
from ferryline.grpc_server.workers.rows import Changes, Row, row_of
from ferryline.registry.errors import FerryError
from ferryline.registry.names import ModelReference

NAME = "m:production"


def counted(version: int, success: int = 1) -> Counted:
    counts = {NAME: {version: row_of(VersionCounters(success=success))}}
    return Counted(round=1, counts=counts, metrics="", cpu_seconds=0, resident_bytes=0)


def text(*pairs: int, each: int = 1) -> str:
    """What a worker tells that compared so many requests with each of these versions."""
    registry = CollectorRegistry()
    compared = Counter("compared", "Text", ["version"], registry=registry)
    warm = Gauge("warm", "Text", ["version"], registry=registry)
    for version in pairs:
        compared.labels(str(version)).inc(each)
        warm.labels(str(version)).set(1)
    return generate_latest(registry).decode()


def totals(relayed: Relayed) -> dict[str, float]:
    samples = (sample for metric in relayed.metrics() for sample in metric.samples)
    return {each.labels["version"]: each.value for each in samples if each.name == "compared_total"}


# --- versions -----------------------------------------------------------------------------------------


def test_after_thousands_of_versions_no_more_are_known_than_one_process_knows() -> None:
    tally, channel = Tally(), LedChannel(ModelReference("m"))
    for version in range(1, 2001):
        channel.counters.of_version(version)
        for worker in (1, 2):
            tally.told(worker, counted(version), {NAME: channel})
    assert set(tally.counts()[NAME]) == set(channel.counters.versions)
    assert len(tally.counts()[NAME]) == KEPT_VERSIONS
    assert channel.counters.versions[2000].success == 2


def test_what_is_old_is_forgotten_when_a_worker_goes_too() -> None:
    tally, channel = Tally(), LedChannel(ModelReference("m"))
    channel.counters.of_version(1)
    tally.told(1, counted(1), {NAME: channel})
    tally.told(2, counted(1, success=5), {NAME: channel})
    tally.gone(1, {NAME: channel})
    assert channel.counters.versions[1].success == 6
    tally.gone(2, {})
    assert tally.counts() == {}, "the channel is left"


def test_a_version_that_was_forgotten_and_comes_again_is_told_of_again() -> None:
    changes = Changes()
    one: dict[int, Row] = {7: (1, 2)}
    two: dict[int, Row] = {8: (3, 4)}
    assert changes.since_last({NAME: one}) == {NAME: one}
    assert changes.since_last({NAME: one}) == {}
    assert changes.since_last({NAME: one | two}) == {NAME: two}
    assert changes.since_last({NAME: two}) == {}
    assert changes.since_last({NAME: one | two}) == {NAME: one}


# --- what workers measure besides ---------------------------------------------------------------------


def test_series_that_no_worker_tells_any_more_do_not_pile_up() -> None:
    relayed = Relayed()
    for version in range(1000):
        for worker in (1, 2):
            relayed.told(worker, text(version, version + 1))
    assert totals(relayed) == {"999": 2, "1000": 2}
    samples = [sample.name for metric in relayed.metrics() for sample in metric.samples]
    assert sorted(samples) == sorted(2 * ["compared_total", "compared_created", "warm"])


def test_a_series_that_one_worker_still_tells_keeps_what_the_others_had_counted() -> None:
    relayed = Relayed()
    relayed.told(1, text(1, 2, each=10))
    relayed.told(2, text(1, 2))
    relayed.told(1, text(2, each=10))
    assert totals(relayed) == {"1": 11, "2": 11}
    relayed.told(2, text(2))
    assert totals(relayed) == {"2": 11}


def test_what_only_a_dead_worker_told_stays_until_it_would_pile_up() -> None:
    relayed = Relayed()
    relayed.told(1, text(1, 2, each=10))
    relayed.gone(1)
    for worker in range(2, 2 + KEPT_DEATHS):
        relayed.told(worker, text(2))
        assert totals(relayed) == {"1": 10, "2": 10 + worker - 1}
        relayed.gone(worker)
    assert totals(relayed) == {"2": 10 + KEPT_DEATHS}


# --- scrapes ------------------------------------------------------------------------------------------


def test_a_scrape_that_cannot_ask_gives_what_was_known_before() -> None:
    answers: list[list[Metric]] = [[Metric("first", "Text", "gauge")]]

    def measure() -> list[Metric]:
        if not answers:
            raise FerryError("the server is stopping")
        return answers.pop()

    collector = WorkersCollector(measure)
    assert [metric.name for metric in collector.collect()] == ["first"]
    assert [metric.name for metric in collector.collect()] == ["first"]


def test_a_scrape_reads_nothing_that_changes_while_it_reads() -> None:
    tally = Tally()
    tally.told(1, counted(1).model_copy(update={"metrics": text(1)}), {})
    scrape = WorkersCollector(tally.others).collect()
    next(scrape)
    tally.told(1, counted(1).model_copy(update={"metrics": text(2, 3)}), {})
    assert {each.labels["version"] for metric in scrape for each in metric.samples} == {"1"}
