from pathlib import Path

import pytest
from river.datasets import Phishing

from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import (
    ArrayFeatures,
    LabelSpec,
    ObjectFeatures,
    PromotionMode,
    load_pipeline,
    parse_pipeline,
)
from tests.support.pipelines import MINIMAL

EXAMPLES = Path("deploy/pipelines")


def scoring(topic: str, dead_letters: str) -> tuple[str, str]:
    table = f'[scoring]\ntopic = "{topic}"\ndead_letters = "{dead_letters}"\n'
    return "[pipeline]", f"{table}[pipeline]"


def test_the_digits_example_says_what_the_design_says() -> None:
    pipeline = load_pipeline(EXAMPLES / "digits.toml")
    assert (pipeline.name, pipeline.model, pipeline.channel) == ("digits", "digits", "production")
    assert pipeline.source.topic == "handwritten_digit"
    assert isinstance(pipeline.source.features, ArrayFeatures)
    assert pipeline.source.features.width == 64
    assert pipeline.source.label.classes == tuple(range(10))
    assert pipeline.require_scoring().topic == "digit_predict"
    assert pipeline.require_scoring().dead_letters == "digit_predict.dlq"


def test_the_phishing_example_names_the_fields_of_the_data_set() -> None:
    pipeline = load_pipeline(EXAMPLES / "phishing.toml")
    features, _ = next(iter(Phishing()))
    assert isinstance(pipeline.source.features, ObjectFeatures)
    assert pipeline.source.features.names == tuple(features)
    assert pipeline.source.label.classes == (False, True)
    assert pipeline.require_scoring().dead_letters == "phishing_predict.dlq"


def test_all_but_source_and_names_has_defaults() -> None:
    pipeline = parse_pipeline(MINIMAL, where="p.toml")
    assert pipeline.channel == "production"
    assert pipeline.source.features.names == ("x[0]", "x[1]")
    assert pipeline.promotion.mode is PromotionMode.ALWAYS
    with pytest.raises(UsageError, match=r"no \[scoring\] table"):
        pipeline.require_scoring()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "p"', 'nome = "p"'), r"pipeline\.nome is not a key"),
        (('name = "p"', ""), r"pipeline\.name is missing"),
        (('name = "p"', 'name = "P q"'), r"pipeline: name: 'P q' cannot name a pipeline"),
        (('topic = "t"', 'topic = "a b"'), r"source\.topic: .*\(it is 'a b'\)"),
        (('kind = "array"', ""), r'source\.features needs kind = "array" or kind = "object"'),
        (("size = 2", "size = 0"), r"source\.features\.size: .*greater than or equal to 1 \(it is 0\)"),
        (("size = 2", "size = 2\nminimum = 5\nmaximum = 1"), "minimum is above maximum"),
        (("classes = [0, 1]", "classes = [0]"), r"source\.label\.classes"),
        (("classes = [0, 1]", "classes = [0, true]"), "all whole numbers, all strings or all booleans"),
        (("classes = [0, 1]", "classes = [1, 1]"), "a class occurs twice"),
        (("classes = [0, 1]", "classes = [1, 0]"), r"ascending order, as scores are: \[0, 1\]"),
        (('kind = "array"\nsize = 2', 'kind = "object"\nnames = ["a", "a"]'), "a name occurs twice"),
        (("classes = [0, 1]", f"classes = [0, {2**63}]"), f"label: the class {2**63} is beyond the 64 bits"),
        (("classes = [0, 1]", f"classes = [{-(2**63) - 1}, 0]"), "is beyond the 64 bits"),
        (("[pipeline]", "[export]\nopset = 99\n[pipeline]"), r"export\.opset: .*equal to 22 \(it is 99\)"),
        (('topic = "t"', 'topic = ".."'), r"source\.topic: no topic of Kafka's may be called so"),
        (("[pipeline]", '[scoring]\ntopic = "t"\n[pipeline]'), "source.topic and scoring.topic are one"),
        (scoring("o", "o"), "scoring.topic and scoring.dead_letters are one topic, o"),
        (scoring("o", "t"), "source.topic and scoring.dead_letters are one topic, t"),
        (scoring("d.replays", "d"), "scoring.topic and the ledger of replays are one topic, d.replays"),
        (scoring("a_b", "a.b"), r"scoring.topic is topic a_b and scoring.dead_letters is a\.b: Kafka"),
        (scoring("o", "d" * 245), r"the ledger of replays would be topic d+\.replays, longer than the 249"),
        (("[pipeline]", "[promotion]\nmode = 'often'\n[pipeline]"), r"promotion\.mode"),
        (("[pipeline]", "[pipeline"), "is not TOML"),
        (("size = 2", f"size = {'9' * 5000}"), "is not TOML"),
    ],
)
def test_a_fault_is_named_by_file_and_key(change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_pipeline(MINIMAL.replace(*change), where="p.toml")
    assert str(caught.value).startswith("p.toml")


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: No such file"):
        load_pipeline(tmp_path / "gone.toml")


def test_labels_are_looked_up_by_type_and_value() -> None:
    numbers = LabelSpec(field="y", classes=(0, 1))
    assert [numbers.index_of(value) for value in (0, 1, 1.0, True, "1", 2, 0.5, None, [1], {})] == [
        0, 1, 1, None, None, None, None, None, None, None,
    ]  # fmt: skip
    truths = LabelSpec(field="y", classes=(False, True))
    assert [truths.index_of(value) for value in (True, False, 1, "true")] == [1, 0, None, None]
