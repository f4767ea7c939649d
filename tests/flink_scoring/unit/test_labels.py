from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.labelling.statements import accuracy_insert, label_statements
from ferryline.flink_scoring.labelling.verdicts import LabelJudge, LabelOutcome
from ferryline.flink_scoring.options import Guarantee, JobOptions
from ferryline.flink_scoring.positions import StartPositions
from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import Pipeline, parse_pipeline

PIPELINE = """
[pipeline]
name = "p"
model = "m"
[source]
topic = "t"
[source.features]
field = "x"
kind = "array"
size = 2
[source.label]
field = "y"
classes = {classes}
[scoring]
topic = "out"
[labels]
topic = "truth"
{more}
"""


STARTS = {
    topic: StartPositions(topic, "p-scoring-labels", offsets, frozenset(), {})
    for topic, offsets in {"truth": {0: 3}, "out": {0: 70, 1: 0}}.items()
}


def pipeline(classes: str = "[0, 1, 2]", more: str = "") -> Pipeline:
    return parse_pipeline(PIPELINE.format(classes=classes, more=more), where="p.toml")


def options(**changes: object) -> JobOptions:
    made = JobOptions(
        pipeline(), store="file:///s", kafka="broker:9092", parallelism=1, checkpoint_seconds=5.0
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # keyword arguments of many types


def settings_of(table: str) -> dict[str, str]:
    return dict(re.findall(r"'([^']+)' = '([^']*)'", table))


@pytest.mark.parametrize(
    ("classes", "message", "label"),
    [
        ("[0, 1, 2]", b"2", 2),
        ("[0, 1, 2]", b"2.0", 2),
        ("[0, 1, 2]", b'{"y": 1, "at": "now"}', 1),
        ("[0, 1, 2]", b"true", None),
        ("[0, 1, 2]", b'"2"', None),
        ("[0, 1, 2]", b"3", None),
        ("[0, 1, 2]", b'{"actual": 1}', None),
        ("[0, 1, 2]", b"{", None),
        ("[0, 1, 2]", b"\xff", None),
        ("[0, 1, 2]", b"", None),
        ("[0, 1, 2]", None, None),
        ("[false, true]", b"true", True),
        ("[false, true]", b"1", None),
        ('["ham", "spam"]', b"spam", "spam"),
        ('["ham", "spam"]', b'"spam"', "spam"),
        ('["ham", "spam"]', b'{"y": "ham"}', "ham"),
        ('["1", "true"]', b"true", "true"),
        ('["1", "true"]', b"1", "1"),
    ],
)
def test_a_label_is_bare_or_in_a_field(classes: str, message: bytes | None, label: object) -> None:
    found = LabelJudge(pipeline(classes)).read(message)
    assert found == label
    assert type(found) is type(label)


def test_the_field_may_have_another_name_than_in_the_source() -> None:
    judge = LabelJudge(pipeline(more='field = "truth"'))
    assert judge.read(b'{"truth": 1, "y": 2}') == 1


@pytest.mark.parametrize("classes", ["[0, 1, 2]", "[false, true]", '["ham", "spam"]'])
def test_a_prediction_is_right_where_it_is_the_label_as_flink_writes_it(classes: str) -> None:
    spec = pipeline(classes)
    judge = LabelJudge(spec)
    for label in spec.source.label.classes:
        for predicted in spec.source.label.classes:
            # Flink's JSON format gives a text column the text of a number or boolean, and a string as it is
            shown = predicted if isinstance(predicted, str) else orjson.dumps(predicted).decode()
            outcome = judge.judge(orjson.dumps(label), shown)
            assert outcome is (LabelOutcome.RIGHT if label == predicted else LabelOutcome.WRONG)
        assert judge.judge(orjson.dumps(label), None) is LabelOutcome.UNMATCHED
    assert judge.judge(b"?", "1") is judge.judge(None, None) is LabelOutcome.MALFORMED


@given(message=st.binary(max_size=40) | st.from_regex(rb'[\[{"0-9a-z:, .e+\-\]}]*', fullmatch=True))
def test_no_message_can_raise(message: bytes) -> None:
    assert LabelJudge(pipeline()).read(message) in {None, 0, 1, 2}


def test_a_label_is_joined_to_predictions_of_the_time_before_it_and_waits_a_while_for_late_ones() -> None:
    joined = label_statements(options(pipeline=pipeline(more="within_seconds = 93784.5")), STARTS)[3]
    assert "l.`timestamp` - INTERVAL '1 02:03:04.500' DAY(3) TO SECOND(3)" in joined
    assert "l.`timestamp` + INTERVAL '0 00:01:00.000' DAY(3) TO SECOND(3)" in joined
    assert "LEFT JOIN" in joined, "labels without a prediction would not be counted"


def test_what_names_no_generation_is_no_prediction() -> None:
    joined = label_statements(options(), STARTS)[3]
    assert re.search(r"FROM ferry_predictions\s+WHERE model.generation IS NOT NULL\s+\) AS p", joined)


def test_both_sides_are_read_committed_by_a_group_of_their_own() -> None:
    labels, predictions, *_ = map(settings_of, label_statements(options(), STARTS))
    for side, topic in ((labels, "truth"), (predictions, "out")):
        assert side["topic"] == topic
        assert side["properties.isolation.level"] == "read_committed"
        assert side["properties.group.id"] == "p-scoring-labels"
        assert side["scan.startup.mode"] == "specific-offsets"
    assert labels["scan.startup.specific-offsets"] == "partition:0,offset:3"
    assert predictions["scan.startup.specific-offsets"] == "partition:0,offset:70;partition:1,offset:0"


def test_accuracy_is_written_as_surely_as_scores_under_a_prefix_of_its_own() -> None:
    sink = settings_of(label_statements(options(), STARTS)[2])
    assert (sink["topic"], sink["sink.transactional-id-prefix"]) == ("out.accuracy", "p-scoring-labels")
    assert sink["sink.delivery-guarantee"] == "exactly-once"
    loose = settings_of(label_statements(options(guarantee=Guarantee.AT_LEAST_ONCE), STARTS)[2])
    assert not [name for name in loose if "transaction" in name]


def test_the_window_is_the_pipelines() -> None:
    insert = accuracy_insert(options(pipeline=pipeline(more="window_seconds = 30")))
    assert "INTERVAL '0 00:00:30.000' DAY(3) TO SECOND(3)" in insert


def test_labels_belong_to_a_pipeline_that_scores_and_to_topics_apart() -> None:
    text = PIPELINE.format(classes="[0, 1]", more="")
    with pytest.raises(UsageError, match=r"\[scoring\] is needed too"):
        parse_pipeline(text.replace('[scoring]\ntopic = "out"', ""), where="p.toml")
    for topic in ("t", "out", "out.dlq", "out.dlq.replays", "out.accuracy"):
        with pytest.raises(UsageError, match=rf"labels\.\w+ are one topic, {topic}; each needs its own"):
            parse_pipeline(text.replace('"truth"', f'"{topic}"'), where="p.toml")
    with pytest.raises(UsageError, match=r"scoring\.topic and labels\.accuracy are one topic, out"):
        pipeline(more='accuracy = "out"')


def test_a_pipeline_without_labels_has_no_accuracy_topic(digits_pipeline: Callable[[], Pipeline]) -> None:
    assert digits_pipeline().accuracy_topic == ""
    assert pipeline(more='accuracy = "elsewhere"').accuracy_topic == "elsewhere"
