"""When one version may take the place of another."""

from __future__ import annotations

import pytest

from ferryline.registry.contract import contract_break
from ferryline.registry.documents import Label, ModelFacts

Classes = tuple[Label, ...] | None


def facts(classes: Classes) -> ModelFacts:
    return ModelFacts(opset=17, ir_version=8, inputs=(), outputs=(), classes=classes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((0, 1), (False, True)),
        ((False, True), (0, 1)),
        ((0, 1), ("0", "1")),
        ((0, 1), (1, 0)),
        (None, (0, 1)),
        ((0, 1), None),
    ],
)
def test_other_classes_are_another_contract(old: Classes, new: Classes) -> None:
    assert "the classes were" in (contract_break(facts(old), facts(new)) or "")


@pytest.mark.parametrize("classes", [None, (), (0, 1), (False, True), ("a", 1, True)])
def test_the_same_classes_are_the_same_contract(classes: Classes) -> None:
    assert contract_break(facts(classes), facts(classes)) is None
