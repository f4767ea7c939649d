from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.sql.config import FunctionSpec
from ferryline.flink_scoring.sql.planning import plan_function, require_signature
from ferryline.registry.documents import ModelFacts, Role, TensorSpec
from ferryline.registry.errors import FerryError, RefusedError, UsageError
from tests.flink_scoring.sql_models import facts, tensor

LABEL = tensor("label", "int64", (-1,), role=Role.LABEL)
SCORES = tensor("probabilities", "float32", (-1, 3), role=Role.PROBABILITY)


def spec(**said: object) -> FunctionSpec:
    return FunctionSpec.model_validate({"model": "wine", **said})


def signature(contract: ModelFacts, **said: object) -> str:
    return str(plan_function("Predict", spec(**said), contract).signature)


def refusal(contract: ModelFacts, **said: object) -> str:
    with pytest.raises(FerryError) as caught:
        plan_function("Predict", spec(**said), contract)
    return str(caught.value)


MATRIX = facts([tensor("x", shape=(-1, 3))], [LABEL, SCORES])
NAMED = facts([tensor("age"), tensor("town", "string"), tensor("member", "bool"), tensor("visits", "int32")])


def test_one_matrix_takes_a_column_for_each_number_or_one_array() -> None:
    assert signature(MATRIX) == "Predict(x_0 DOUBLE, x_1 DOUBLE, x_2 DOUBLE) -> BIGINT"
    assert signature(MATRIX, arguments=["a", "b", "c"]) == "Predict(a DOUBLE, b DOUBLE, c DOUBLE) -> BIGINT"
    assert signature(MATRIX, shape="array") == "Predict(x ARRAY<DOUBLE>) -> BIGINT"
    assert signature(facts([tensor("x", shape=(-1,))])) == "Predict(x DOUBLE) -> DOUBLE"
    assert (
        signature(facts([tensor("pixels", "uint8", (-1, 2, 2))])) == "Predict(pixels ARRAY<BIGINT>) -> DOUBLE"
    )


def test_many_inputs_take_an_argument_each_of_their_own_type() -> None:
    whole = "Predict(age DOUBLE, town STRING, member BOOLEAN, visits BIGINT) -> DOUBLE"
    assert signature(NAMED) == whole
    mixed = facts([tensor("history", shape=(-1, 4)), tensor("age")])
    assert signature(mixed) == "Predict(history ARRAY<DOUBLE>, age DOUBLE) -> DOUBLE"


def test_arguments_give_names_or_an_order_or_both() -> None:
    renamed = signature(NAMED, arguments=["a", "b", "c", "d"])
    assert renamed == "Predict(a DOUBLE, b STRING, c BOOLEAN, d BIGINT) -> DOUBLE"
    ordered = plan_function("Predict", spec(arguments=["visits", "town", "member", "age"]), NAMED)
    assert (
        str(ordered.signature) == "Predict(visits BIGINT, town STRING, member BOOLEAN, age DOUBLE) -> DOUBLE"
    )
    assert {feed.tensor.name: feed.positions for feed in ordered.feeds} == {
        "age": (3,), "town": (1,), "member": (2,), "visits": (0,)
    }  # fmt: skip
    both = {"n": "visits", "years": "age", "place": "town", "known": "member"}
    found = plan_function("Predict", spec(arguments=both), NAMED).signature
    assert [(each.name, each.feature) for each in found.arguments] == list(both.items())


def test_arguments_that_do_not_fit_are_refused_with_what_the_model_takes() -> None:
    assert "arguments names 2, the model takes 3: x_0, x_1, x_2" in refusal(MATRIX, arguments=["a", "b"])
    # a list that names some of the features is a slip, and not an order
    assert "each of the model's features once (age, town" in refusal(NAMED, arguments=["age", "b", "c", "d"])
    assert "shape is for a model with one input" in refusal(NAMED, shape="array")
    assert "say shape" in refusal(facts([tensor("x", shape=(-1, -1))]), shape="columns")
    assert "251 arguments are too many" in refusal(facts([tensor("x", shape=(-1, 251))]))


def test_a_width_that_the_model_leaves_open_is_that_of_the_arguments() -> None:
    free = facts([tensor("x", shape=(-1, -1))])
    assert signature(free, arguments=["a", "b"]) == "Predict(a DOUBLE, b DOUBLE) -> DOUBLE"
    assert signature(free) == "Predict(x ARRAY<DOUBLE>) -> DOUBLE"


def test_returns_names_outputs_or_roles() -> None:
    assert signature(MATRIX, returns="probability").endswith("-> ARRAY<DOUBLE>")
    assert signature(MATRIX, returns="probabilities").endswith("-> ARRAY<DOUBLE>")
    several = signature(MATRIX, returns=["label", "probability"])
    assert several.endswith("-> ROW<label BIGINT, probability ARRAY<DOUBLE>>")
    assert signature(MATRIX, with_model=True).endswith(
        "-> ROW<prediction BIGINT, version BIGINT, generation BIGINT>"
    )
    assert "label (label), probabilities (probability)" in refusal(MATRIX, returns="score")


def test_a_label_is_of_the_type_of_the_classes_it_stands_for() -> None:
    def label(classes: tuple[object, ...]) -> str:
        return signature(facts([tensor("x")], [LABEL], classes)).partition("-> ")[2]

    assert label(("cat", "dog")) == "STRING"
    assert label((False, True)) == "BOOLEAN"
    assert label((0, 1)) == "BIGINT"


def test_a_model_without_a_free_batch_cannot_be_called() -> None:
    for shape in ((1, 3), (), (-1, -1, 2), (-1, 0)):
        with pytest.raises(RefusedError, match="has shape"):
            plan_function("Predict", spec(), facts([tensor("x", shape=shape)]))


def test_names_that_sql_cannot_write_are_made_so_and_stay_different() -> None:
    odd = facts([tensor("petal length"), tensor("petal_length"), tensor("1st"), tensor("Petal_Length")])
    assert signature(odd).startswith(
        "Predict(petal_length DOUBLE, petal_length_2 DOUBLE, _1st DOUBLE, Petal_Length_3 DOUBLE)"
    )


def test_only_versions_with_the_planned_signature_are_accepted() -> None:
    planned = plan_function("Predict", spec(), MATRIX).signature
    accept = require_signature(planned, spec())
    accept(MATRIX)
    accept(facts([tensor("x", "float64", (-1, 3))], [LABEL, SCORES]))  # the trainer chooses the precision
    with pytest.raises(RefusedError, match=r"planned with Predict\(x_0 DOUBLE, x_1 DOUBLE, x_2 DOUBLE\)"):
        accept(facts([tensor("x", shape=(-1, 4))], [LABEL, SCORES]))
    named = require_signature(planned, spec(arguments=["a", "b", "c"]))
    with pytest.raises(
        RefusedError, match="the model takes 4"
    ):  # a usage error would be tried again for ever
        named(facts([tensor("x", shape=(-1, 4))], [LABEL, SCORES]))


# --- properties -----------------------------------------------------------------------------------

DTYPES = ("float32", "float64", "int8", "int64", "uint32", "string", "bool")
shapes = st.sampled_from([(-1,), (-1, 1), (-1, 2), (-1, 5), (-1, 2, 3)])
tensors = st.lists(
    st.tuples(st.from_regex(r"[a-zA-Z_][\w .]{0,5}", fullmatch=True), st.sampled_from(DTYPES), shapes),
    min_size=1, max_size=6, unique_by=lambda each: each[0],
).map(lambda found: [TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in found])  # type: ignore[arg-type]  # fmt: skip


@given(inputs=tensors, outputs=tensors)
def test_every_contract_with_a_free_batch_gives_a_signature(
    inputs: list[TensorSpec], outputs: list[TensorSpec]
) -> None:
    contract = facts(inputs, outputs)
    plan = plan_function("Predict", spec(returns=[output.name for output in outputs]), contract)
    names = [argument.name.lower() for argument in plan.signature.arguments]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    # each argument feeds exactly one place of exactly one tensor
    fed = sorted(position for feed in plan.feeds for position in feed.positions)
    assert fed == list(range(len(names)))
    assert [feed.tensor for feed in plan.feeds] == inputs
    require_signature(plan.signature, spec(returns=[output.name for output in outputs]))(contract)


@given(inputs=tensors.filter(lambda found: len(found) > 1), data=st.data())
def test_any_order_of_arguments_feeds_the_same_tensors(inputs: list[TensorSpec], data: st.DataObject) -> None:
    contract = facts(inputs)
    usual = plan_function("Predict", spec(), contract)
    order = data.draw(st.permutations(range(len(inputs))))
    features = [usual.signature.arguments[place].feature for place in order]
    table = {f"argument_{number}": feature for number, feature in enumerate(features)}
    moved = plan_function("Predict", spec(arguments=table), contract)
    for feed, same in zip(usual.feeds, moved.feeds, strict=True):
        assert feed.tensor == same.tensor
        assert moved.signature.arguments[same.positions[0]].feature == feed.tensor.name


def test_a_wrong_file_is_a_usage_error_and_not_a_refusal() -> None:
    with pytest.raises(UsageError, match="Predict"):
        plan_function("Predict", spec(returns="nothing"), MATRIX)
