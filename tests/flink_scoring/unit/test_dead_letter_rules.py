from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.dead_letters.ledger import (
    LedgerScope,
    Replayed,
    Watermarks,
    decode_entry,
    encode_entry,
)
from ferryline.flink_scoring.dead_letters.letters import StoredLetter, store_letter, value_left_behind
from ferryline.flink_scoring.dead_letters.replaying import ReplayPlan, _Run, plan_replay, revived
from ferryline.flink_scoring.dead_letters.selection import Selection, parse_place, parse_since
from ferryline.flink_scoring.dead_letters.summary import summarise
from ferryline.flink_scoring.dead_letters.verdicts import Judge, Verdict
from ferryline.registry.errors import UsageError
from ferryline.streams.deadletters import REPLAYED, DeadLetter, dead_letter_headers
from ferryline.streams.errors import MalformedRecordError
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from tests.flink_scoring.conftest import digits_toml

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
SCOPE = LedgerScope("id-1", "digits.in")
REASONS = ("wrong_length", "inference_failed", "invalid_json")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return parse_pipeline(digits_toml("digits"), where="digits")


def letter(reason: str = "wrong_length", *, replays: int = 0, **fields: Any) -> DeadLetter:
    headers = (("trace", b"7"), *([(REPLAYED, str(replays).encode())] if replays else []))
    made = DeadLetter(b"k", b"v", reason, "why", "digits.in", 0, 5, "digits", headers)
    return replace(made, **fields)


def stored(
    found: DeadLetter | None, offset: int = 0, *, partition: int = 0, at: datetime = NOW
) -> StoredLetter:
    return StoredLetter(partition, offset, at, found)


# --- the ledger ------------------------------------------------------------------------------------

_places = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**62)), min_size=1, unique=True)


@given(_places)
def test_an_entry_is_read_back(places: list[tuple[int, int]]) -> None:
    assert sorted(decode_entry(encode_entry(SCOPE, places, NOW), SCOPE)) == sorted(places)


def test_an_entry_names_runs_so_that_a_whole_topic_is_a_line() -> None:
    entry = encode_entry(SCOPE, [(0, offset) for offset in range(10_000)], NOW)
    assert b'"replayed":{"0":[[0,9999]]}' in entry


@pytest.mark.parametrize("other", [LedgerScope("id-2", "digits.in"), LedgerScope("id-1", "repair")])
def test_another_topics_or_destinations_entry_says_nothing(other: LedgerScope) -> None:
    assert decode_entry(encode_entry(SCOPE, [(0, 1)], NOW), other) == []


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[]", b"7", b'{"topic_id": 1'])
def test_what_is_no_entry_stops_the_replay(value: bytes | None) -> None:
    with pytest.raises(MalformedRecordError, match="ledger"):
        decode_entry(value, SCOPE)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans())))
def test_a_mark_never_passes_a_letter_that_stays(told: list[tuple[int, bool]]) -> None:
    marks, seen = Watermarks(), dict.fromkeys(range(3), 0)
    left: dict[int, int] = {}
    for partition, settled in told:
        marks.tell((partition, seen[partition]), settled=settled)
        if not settled:
            left.setdefault(partition, seen[partition])
        seen[partition] += 1
    for partition, count in seen.items():
        assert marks.marks().get(partition, 0) == left.get(partition, count)


# --- selection -------------------------------------------------------------------------------------


def test_letters_are_chosen_by_pipeline_reason_and_moment() -> None:
    selection = Selection("digits", frozenset({"wrong_length"}), NOW)
    assert selection.takes(stored(letter()))
    assert not selection.takes(stored(letter("invalid_json")))
    assert not selection.takes(stored(letter(), at=NOW - timedelta(milliseconds=1)))
    assert not selection.takes(stored(letter(pipeline="phishing")))
    assert not selection.takes(stored(None))


def test_a_moment_is_a_date_or_how_long_ago() -> None:
    assert parse_since("2026-01-02T03:04", NOW) == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert parse_since("2h", NOW) == NOW - timedelta(hours=2)
    with pytest.raises(UsageError, match="write 2026"):
        parse_since("yesterday", NOW)


def test_a_place_is_partition_and_offset() -> None:
    assert parse_place("2:17") == (2, 17)
    for text in ("17", "a:1", "1:", "-1:2", "1:2:3", "²:1"):
        with pytest.raises(UsageError, match="PARTITION:OFFSET"):
            parse_place(text)


# --- verdicts --------------------------------------------------------------------------------------


def test_each_letter_gets_its_verdict() -> None:
    replayed = Replayed()
    replayed.add([(0, 7)])
    judge = Judge(Selection("digits", frozenset({"wrong_length"})), replayed)
    assert judge(stored(letter())) is Verdict.REPLAYED
    assert judge(stored(letter(), 7)) is Verdict.ALREADY
    assert judge(stored(letter("invalid_json"))) is Verdict.NOT_SELECTED
    assert judge(stored(letter(pipeline="phishing"))) is Verdict.FOREIGN
    assert judge(stored(None)) is Verdict.FOREIGN
    assert judge(stored(letter(replays=2))) is Verdict.REPLAYED
    assert judge(stored(letter(replays=3))) is Verdict.EXHAUSTED
    assert replace(judge, force=True)(stored(letter(replays=3))) is Verdict.REPLAYED


def test_a_letter_that_was_not_sent_is_not_settled() -> None:
    left = {verdict for verdict in Verdict if not verdict.settles}
    assert left == {Verdict.NOT_SELECTED, Verdict.EXHAUSTED, Verdict.VALUE_LOST, Verdict.TOO_LARGE}


def test_only_a_tombstone_had_no_value() -> None:
    assert value_left_behind(letter("record_too_large", value=None))
    assert not value_left_behind(letter("no_value", value=None))
    assert not value_left_behind(letter("record_too_large"))


# --- the record again ------------------------------------------------------------------------------


def test_a_record_goes_home_with_one_more_replay(pipeline: Pipeline) -> None:
    plan = plan_replay(pipeline, Selection("digits"), None)
    record = revived(letter(replays=1, partition=2), b"v", plan, 3, now=NOW)
    assert (record.topic, record.partition, record.key, record.value) == ("digits.in", 2, b"k", b"v")
    assert record.headers == [("trace", b"7"), (REPLAYED, b"2")]
    assert revived(letter(partition=3), b"v", plan, 3, now=NOW).partition is None
    assert revived(letter(topic="older.in"), b"v", plan, 3, now=NOW).partition is None


def test_the_kafka_timestamp_is_kept_where_it_is_the_event_time(pipeline: Pipeline) -> None:
    timed = plan_replay(pipeline, Selection("digits"), None)
    text = digits_toml("digits").replace('event_time = "ts"', "")
    untimed = plan_replay(parse_pipeline(text, where="digits"), Selection("digits"), None)
    moment = NOW - timedelta(milliseconds=1234)
    assert revived(letter(timestamp=moment), b"v", timed, 1, now=NOW).timestamp_ms is None
    kept = revived(letter(timestamp=moment), b"v", untimed, 1, now=NOW).timestamp_ms
    assert kept == round(moment.timestamp() * 1000)
    for impossible in (NOW + timedelta(seconds=1), datetime(1969, 1, 1, tzinfo=UTC), None):
        record = revived(letter(timestamp=impossible), b"v", untimed, 1, now=NOW)
        assert record.timestamp_ms is None


@pytest.mark.parametrize("topic", ["digits.out", "digits.out.dlq", "digits.out.dlq.replays"])
def test_records_never_go_where_the_pipeline_writes(pipeline: Pipeline, topic: str) -> None:
    with pytest.raises(UsageError, match="a topic that the pipeline writes"):
        plan_replay(pipeline, Selection("digits"), topic)


def test_lag_of_the_usual_group_is_about_the_source_topic(pipeline: Pipeline) -> None:
    assert plan_replay(pipeline, Selection("digits"), None).group == "digits-dlq-replay"
    assert plan_replay(pipeline, Selection("digits"), "repair").group == "digits-dlq-replay-repair"


# --- many replays, some of them cut off ------------------------------------------------------------


class _CutOffError(Exception):
    """The replay was killed before its transaction was committed."""


class _Broker:
    """What is committed: records, ledger and the group's offsets, all of a transaction or nothing."""

    def __init__(self) -> None:
        self.sent: list[bytes | None] = []
        self.replayed = Replayed()
        self.marks: dict[int, int] = {}
        self.commits_left = 0

    def commit(self, records: Any, offsets: Any, _group: object) -> None:
        if not self.commits_left:
            raise _CutOffError
        self.commits_left -= 1
        if records:
            *outgoing, entry = records
            self.sent += [record.value for record in outgoing]
            self.replayed.add(decode_entry(entry.value, SCOPE))
        self.marks |= {part.partition: offset for part, offset in offsets.items()}


_runs = st.lists(
    st.fixed_dictionaries(
        {
            "reasons": st.frozensets(st.sampled_from(REASONS)),
            "limit": st.none() | st.integers(1, 8),
            "batch": st.integers(1, 5),
            "commits": st.integers(0, 3),
        }
    ),
    max_size=6,
)
_letters = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(REASONS)), max_size=25)


@given(_letters, _runs)
def test_whatever_is_chosen_and_cut_off_each_letter_is_sent_once(
    pipeline: Pipeline, wanted: list[tuple[int, str]], runs: list[dict[str, Any]]
) -> None:
    letters = [
        stored(letter(reason, value=str(offset).encode()), offset, partition=partition)
        for offset, (partition, reason) in enumerate(wanted)
    ]
    broker = _Broker()
    everything = {"reasons": frozenset(), "limit": None, "batch": 3, "commits": len(letters) + 1}
    for run in [*runs, everything]:
        plan = ReplayPlan(pipeline, Selection("digits", run["reasons"]), "digits.in", run["limit"])
        _replay_once(broker, plan, letters, run)
    assert sorted(broker.sent) == sorted(item.letter.value for item in letters if item.letter)
    # offsets of both partitions are drawn from one row, so each may end behind its last letter
    assert broker.marks == ({0: len(letters), 1: len(letters)} if letters else {})


def _replay_once(broker: _Broker, plan: ReplayPlan, letters: list[StoredLetter], run: dict[str, Any]) -> None:
    broker.commits_left = run["commits"]
    judge = Judge(plan.selection, broker.replayed)
    state = _Run(plan, SCOPE, judge, originals=None, largest=10_000)  # type: ignore[arg-type]
    rest = [item for item in letters if item.offset >= broker.marks.get(item.partition, 0)]
    for start in range(0, len(rest), run["batch"]):
        state.take(rest[start : start + run["batch"]])
        try:
            state.commit(broker, None)  # type: ignore[arg-type]
        except _CutOffError:
            return
        if state.is_full:
            return
    state.marks.pass_ends(dict.fromkeys((0, 1), len(letters)) if letters else {})
    with suppress(_CutOffError):
        state.commit(broker, None, marks_alone=True)  # type: ignore[arg-type]


def test_a_dry_run_keeps_no_value(pipeline: Pipeline) -> None:
    plan = ReplayPlan(pipeline, Selection("digits"), "digits.in", dry_run=True)
    state = _Run(plan, SCOPE, Judge(plan.selection, Replayed()), originals=None, largest=10_000)  # type: ignore[arg-type]
    state.take([stored(letter(), offset) for offset in range(5)])
    assert state.report.of(Verdict.REPLAYED) == 5
    assert not state.outgoing
    assert not state.places


# --- reading and counting --------------------------------------------------------------------------


def test_a_message_is_read_as_a_letter_or_as_what_it_is_not() -> None:
    made = letter()
    message = SimpleNamespace(
        partition=1, offset=9, timestamp=1000, key=made.key, value=made.value, headers=None
    )
    message.headers = dead_letter_headers(made)
    found = store_letter(message)
    assert (found.place, found.letter) == ("1:9", made)
    assert found.written_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    message.timestamp = 253_402_300_800_000  # the year 10000
    assert store_letter(message).written_at == datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)
    message.headers = []
    assert store_letter(message).letter is None
    assert "is missing" in store_letter(message).fault


def test_letters_are_counted_by_reason() -> None:
    replayed = Replayed()
    replayed.add([(0, 1)])
    found = summarise(
        [
            stored(letter("wrong_length", detail="first"), 0, at=NOW),
            stored(letter("wrong_length", detail="last", replays=1), 1, at=NOW + timedelta(hours=1)),
            stored(letter("invalid_json"), 2),
            stored(None, 3),
        ],
        replayed,
    )
    assert [item.reason for item in found] == ["wrong_length", "invalid_json"]
    first = found[0]
    assert (first.letters, first.replayed, first.waiting, first.again) == (2, 1, 1, 1)
    assert (first.oldest, first.newest, first.detail) == (NOW, NOW + timedelta(hours=1), "last")
    assert first.document()["waiting"] == 1
