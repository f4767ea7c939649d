"""When one version may take the place of another without its callers noticing."""

from __future__ import annotations

from collections.abc import Sequence

from ferryline.registry.documents import Label, ModelFacts, TensorSpec


def contract_break(incumbent: ModelFacts, candidate: ModelFacts) -> str | None:
    """What callers of `incumbent` would notice if `candidate` took its place, None for nothing.

    Every input must be there with the same dtype and a shape that takes the same tensors, and no other input;
    every output must be there with the same dtype, shape and role; further outputs harm nobody.
    """
    old_inputs, new_inputs = _by_name(incumbent.inputs), _by_name(candidate.inputs)
    if missing := set(old_inputs) ^ set(new_inputs):
        name = min(missing)
        return f"input {name!r} is {'new' if name in new_inputs else 'gone'}"
    for name, old in old_inputs.items():
        if fault := _input_break(old, new_inputs[name]):
            return f"input {name!r} {fault}"
    new_outputs = _by_name(candidate.outputs)
    for output in incumbent.outputs:
        if output.name not in new_outputs:
            return f"output {output.name!r} is gone"
        if fault := _output_break(output, new_outputs[output.name]):
            return f"output {output.name!r} {fault}"
    if _exactly(incumbent.classes) != _exactly(candidate.classes):
        return f"the classes were {_listed(incumbent)} and are {_listed(candidate)}"
    return None


def _exactly(classes: Sequence[Label] | None) -> list[tuple[type, Label]] | None:
    """Returns the classes with their types, as `0 == False` in Python and not for a caller."""
    return None if classes is None else [(type(label), label) for label in classes]


def _by_name(specs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _input_break(old: TensorSpec, new: TensorSpec) -> str | None:
    if old.dtype != new.dtype:
        return f"was {old.dtype} and is {new.dtype}"
    takes_the_same = len(old.shape) == len(new.shape) and all(
        now in {-1, before} for before, now in zip(old.shape, new.shape, strict=True)
    )
    return None if takes_the_same else f"had shape {list(old.shape)} and has {list(new.shape)}"


def _output_break(old: TensorSpec, new: TensorSpec) -> str | None:
    if old.dtype != new.dtype:
        return f"was {old.dtype} and is {new.dtype}"
    if old.shape != new.shape:
        return f"had shape {list(old.shape)} and has {list(new.shape)}"
    if old.role != new.role:
        return f"meant {old.role} and means {new.role}"
    return None


def _listed(facts: ModelFacts) -> str:
    return "none" if facts.classes is None else str(list(facts.classes))
