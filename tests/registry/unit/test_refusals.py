from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry.errors import StoreDeniedError, StoreUnreachableError, UsageError
from ferryline.registry.refusals import LONGEST_TEXT, PUBLISH, RefusalRecord, Refusals, is_record
from ferryline.registry.stores import Listed, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import FaultyStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PREFIX = "models/digits/refusals/"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets = 0
        self.lines = 0
        self.listings = 0

    def get(self, key: str) -> Stored:
        self.gets += 1
        return super().get(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        self.listings += 1
        for listed in super().list(prefix, after=after):
            self.lines += 1
            yield listed


def record(ledger: Refusals, reason: str = "too deep") -> RefusalRecord | None:
    return ledger.record(gate="functions", reason=reason, remedy="export it again", consumer=PUBLISH)


def test_a_record_says_all_that_was_known() -> None:
    ledger = Refusals(MemoryStore(), "digits", clock=Clock())
    written = ledger.record(
        gate="golden-rows", reason="row 3 differs", remedy="publish it again", consumer="job-1",
        channel="production", version=7, generation=12, blob_digest="sha256:" + "a" * 64,
    )  # fmt: skip
    assert written is not None
    assert [found.encode() for found in ledger.newest()] == [written.encode()]
    assert written.at == NOON
    assert (written.model, written.channel, written.version, written.generation) == (
        "digits",
        "production",
        7,
        12,
    )


def test_records_lie_in_the_order_of_their_times() -> None:
    store, clock = MemoryStore(), Clock()
    record(Refusals(store, "digits", clock=clock))
    (listed,) = store.list(PREFIX)
    name = listed.key.removeprefix(PREFIX)
    assert name.startswith("20260301T120000.000000-")
    assert is_record(name)


@given(
    ages=st.lists(st.integers(0, 10_000_000), max_size=30, unique=True),
    limit=st.integers(min_value=1, max_value=12),
)
def test_the_newest_come_first_whatever_their_ages(ages: list[int], limit: int) -> None:
    store, clock = MemoryStore(), Clock()
    ledger = Refusals(store, "digits", clock=clock)
    for age in ages:
        clock.now = NOON - timedelta(seconds=age)
        record(ledger, str(age))
    clock.now = NOON
    assert [found.reason for found in ledger.newest(limit)] == [str(age) for age in sorted(ages)[:limit]]


@pytest.mark.parametrize(
    "skew", [timedelta(days=-400), timedelta(days=-1), timedelta(days=1), timedelta(days=400)]
)
def test_a_reader_whose_clock_is_wrong_reads_the_same(skew: timedelta) -> None:
    store, clock = MemoryStore(), Clock()
    for number in range(5):
        record(Refusals(store, "digits", clock=clock), str(number))
        clock.now += timedelta(hours=1)
    clock.now += skew
    assert [found.reason for found in Refusals(store, "digits", clock=clock).newest(2)] == ["4", "3"]


def test_the_newest_few_of_thousands_are_cheap() -> None:
    store, clock = Counting(), Clock()
    ledger = Refusals(store, "digits", clock=clock)
    for _ in range(3_000):
        record(ledger)
        clock.now += timedelta(seconds=60)
    assert len(ledger.newest(20)) == 20
    assert (store.listings, store.gets) == (2, 20)
    assert store.lines < 70


def test_damaged_and_foreign_objects_are_passed_over() -> None:
    store, clock = MemoryStore(), Clock()
    ledger = Refusals(store, "digits", clock=clock)
    for number in range(4):
        record(ledger, str(number))
        clock.now += timedelta(days=20)
    keys = [listed.key for listed in store.list(PREFIX)]
    store.put(keys[3], b"{")
    store.put(keys[1], b'{"schema_version": "9.0"}')
    store.put(f"{PREFIX}README.md", b"hello")
    store.put(f"{PREFIX}zzz.json", b"{}")
    complaints: list[str] = []
    assert [found.reason for found in ledger.newest(2, on_unreadable=complaints.append)] == ["2", "0"]
    assert [text.partition(" ")[0] for text in complaints] == [keys[3], keys[1]]


def test_a_writer_that_cannot_write_goes_on() -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    assert record(Refusals(store, "digits")) is None
    with pytest.raises(StoreUnreachableError):
        Refusals(store, "digits").newest()

    class Denied(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            raise StoreDeniedError("no rights")

    assert record(Refusals(Denied(), "digits")) is None
    ledger = Refusals(MemoryStore(), "digits")
    assert ledger.record(gate="g", reason="r", remedy="", consumer="c", blob_digest="no digest") is None


def test_texts_of_hostile_files_are_kept_short_and_readable() -> None:
    ledger = Refusals(MemoryStore(), "digits")
    written = record(ledger, "\udcff" + "x" * 1_000_000)
    assert written is not None
    assert [found.encode() for found in ledger.newest()] == [written.encode()]
    assert len(written.reason) == LONGEST_TEXT


def test_a_ledger_needs_a_model() -> None:
    with pytest.raises(UsageError):
        Refusals(MemoryStore(), "../digits")
