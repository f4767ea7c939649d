from hypothesis import given
from hypothesis import strategies as st

from ferryline.streams.pipeline import ExportSpec
from ferryline.trainer.schedule import ExportSchedule

SPEC = ExportSpec(every_records=100, every_seconds=5, min_seconds=1)


def test_due_after_enough_records_or_after_enough_time_with_a_new_one() -> None:
    schedule = ExportSchedule.start(SPEC, records=50, now=10.0)
    assert not schedule.due(records=149, now=14.9)
    assert schedule.due(records=150, now=11.0)
    assert schedule.due(records=51, now=15.0)
    assert not schedule.due(records=50, now=1e6)


def test_never_sooner_than_the_least_pause() -> None:
    schedule = ExportSchedule.start(SPEC, records=0, now=0.0)
    assert not schedule.due(records=10_000, now=0.99)
    assert schedule.due(records=10_000, now=1.0)


def test_an_export_begins_a_new_period() -> None:
    schedule = ExportSchedule.start(SPEC, records=0, now=0.0).exported(records=100, now=1.0)
    assert not schedule.due(records=199, now=5.9)
    assert schedule.due(records=101, now=6.0)
    assert schedule.due(records=200, now=2.0)


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0.01, 3)), max_size=60))
def test_over_any_stream_exports_are_neither_too_dense_nor_too_rare(
    arrivals: list[tuple[int, float]],
) -> None:
    schedule, records, now = ExportSchedule.start(SPEC, records=0, now=0.0), 0, 0.0
    for fresh, waited in arrivals:
        records, now = records + fresh, now + waited
        if schedule.due(records=records, now=now):
            assert now - schedule.at >= SPEC.min_seconds
            assert records > schedule.records
            schedule = schedule.exported(records=records, now=now)
        elif records > schedule.records:
            assert now - schedule.at < SPEC.every_seconds
            assert records - schedule.records < SPEC.every_records or now - schedule.at < SPEC.min_seconds
