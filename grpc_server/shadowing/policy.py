"""What operators decide about shadows: which channel is one, of how many requests, and how many may wait."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ferryline.registry.errors import UsageError
from ferryline.registry.names import ModelReference

MIB = 2**20

_SHARE = re.compile(r"\d{0,9}(?:\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """One shadow.

    Args:
        model: the model whose requests are run again.
        channel: the channel whose version runs them.
        share: of how many, above 0 and up to 1.
    """

    model: str
    channel: str
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.model}:{self.channel}"

    @property
    def reference(self) -> ModelReference:
        """The channel to follow."""
        return ModelReference(self.model, channel=self.channel)


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """What may wait to be run again by one shadow.

    Args:
        requests: the most requests.
        size: bytes of their inputs and answers.
    """

    requests: int = 1000
    size: int = 64 * MIB


def parse_shadows(texts: Sequence[str]) -> tuple[ShadowPolicy, ...]:
    """Shadows from `MODEL:CHANNEL` and `MODEL:CHANNEL=SHARE`.

    Raises:
        UsageError: one is of no such form, or a model has two.
    """
    found: dict[str, ShadowPolicy] = {}
    for text in texts:
        policy = _parse(text)
        if policy.model in found:
            raise UsageError(
                f"model {policy.model} has two shadows, {found[policy.model]} and {policy}; it may have one"
            )
        found[policy.model] = policy
    return tuple(found.values())


def _parse(text: str) -> ShadowPolicy:
    name, separator, share = text.partition("=")
    reference = ModelReference.parse(name)
    if reference.channel is None:
        raise UsageError(
            f"shadow {text!r} is not of the form MODEL:CHANNEL=SHARE, such as digits:staging=0.1"
        )
    return ShadowPolicy(reference.model, reference.channel, _share(share, text) if separator else 1.0)


def _share(share: str, text: str) -> float:
    # float() would take "nan", "1_0" and digits of other scripts, too
    number = float(share) if share and _SHARE.fullmatch(share) else 0.0
    if not 0 < number <= 1:
        raise UsageError(f"shadow {text!r} has the share {share!r}; use a number above 0 and up to 1")
    return number
