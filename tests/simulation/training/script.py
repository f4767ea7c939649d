"""Histories as scripts: what happens to a trainer, a step at each of its polls; a seed always gives the same.

A script is text of one step a line, so that a failing one can be read, cut down and played again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum

RECORDS = ("good", "wrong", "bad", "tombstone", "poison", "year_10000", "year_-300", "no_time")
"""What a record can be: learnable and foretold right or wrong, no document, without a value, beyond what the
learner takes, or with a timestamp that is no moment of the calendar."""
_RECORD_WEIGHTS = (10, 3, 2, 1, 1, 1, 1, 1)


class Act(StrEnum):
    """What a step does; the words after it are its arguments."""

    APPEND = "append"  # partition, kind, count
    COMMITTED = "committed"  # partition, count: a transaction
    ABORTED = "aborted"  # partition, count
    OPENED = "opened"  # partition, count: a transaction that stays open
    FINISHED = "finished"  # partition: those that are open are committed
    RETENTION = "retention"  # partition, records that stay
    COMPACTION = "compaction"  # partition
    TRUNCATION = "truncation"  # partition, offsets lost: an unclean election
    PARTITION_ADDED = "partition_added"
    TOPIC_ANEW = "topic_anew"  # partitions, records in each
    TOPIC_DELETED = "topic_deleted"
    KAFKA_DOWN = "kafka_down"
    KAFKA_UP = "kafka_up"
    STORE_DOWN = "store_down"
    STORE_UP = "store_up"
    STORE_FAULT = "store_fault"  # fault, requests before it
    GATE_FAULT = "gate_fault"  # calls that raise OSError
    EXPORT_FAULT = "export_fault"  # calls that raise OSError
    SAVE_FAULT = "save_fault"  # saves that the disk does not take
    KILL = "kill"  # points until then, steps that happen while it is down
    RESTART = "restart"  # steps that happen while it is down
    WAIT = "wait"  # seconds
    HOLD = "hold"
    RELEASE = "release"
    FOREIGN = "foreign"  # another program publishes and promotes
    CANARY = "canary"
    CANARY_ENDED = "canary_ended"
    DAMAGED = "damaged"  # the manifest of the version that serves cannot be read
    VANISHED = "vanished"  # or is gone


@dataclass(frozen=True, slots=True)
class Step:
    """One step."""

    act: Act
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.act, *self.words))

    def number(self, index: int) -> int:
        """An argument that is a number."""
        return int(self.words[index])

    @classmethod
    def parse(cls, line: str) -> Step:
        """The step that a line says."""
        act, *words = line.split()
        return cls(Act(act), tuple(words))


@dataclass(frozen=True, slots=True)
class History:
    """A trainer's life.

    Attributes:
        seed: draws the order of threads, too.
        start: where the pipeline begins: `earliest` or `latest`.
        mode: of its promotions.
        partitions: of the topic at the begin.
        real: whether scikit-learn learns and skl2onnx exports, or what stands for them and takes no time.
        steps: what happens.
    """

    seed: int
    start: str = "earliest"
    mode: str = "always"
    partitions: int = 1
    real: bool = False
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        head = (
            f"# seed {self.seed} start {self.start} mode {self.mode} partitions {self.partitions} "
            f"real {int(self.real)}"
        )
        return "\n".join([head, *map(str, self.steps)])

    @classmethod
    def parse(cls, text: str) -> History:
        """The history that `str` gave."""
        head, *lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        words = head.split()[1:]
        said = dict(zip(words[::2], words[1::2], strict=True))
        return cls(
            seed=int(said["seed"]),
            start=said["start"],
            mode=said["mode"],
            partitions=int(said["partitions"]),
            real=said["real"] == "1",
            steps=[Step.parse(line) for line in lines],
        )

    @classmethod
    def of_seed(cls, seed: int, *, real: bool = False) -> History:
        """The history of a seed."""
        draw = random.Random(seed)  # noqa: S311 - a history, no secret
        mode = draw.choices(["always", "no_worse", "manual"], [6, 2, 1])[0]
        partitions = draw.choice([1, 1, 2, 3])
        if mode == "no_worse" and draw.random() < _FADING:
            steps = list(_fading())
        else:
            steps = _steps(draw, partitions, real=real)
        start = draw.choices(["earliest", "latest"], [4, 1])[0]
        return cls(seed, start, mode, partitions, real, steps)


_FADING = 0.15
_SHORTEST, _LONGEST = 4, 10
_COMMON = 4  # appends for each other step
_CHANCES: dict[Act, int] = {
    Act.COMMITTED: 3, Act.ABORTED: 3, Act.OPENED: 1, Act.FINISHED: 1, Act.RETENTION: 2, Act.COMPACTION: 1,
    Act.TRUNCATION: 2, Act.PARTITION_ADDED: 2, Act.TOPIC_ANEW: 2, Act.TOPIC_DELETED: 1, Act.KAFKA_DOWN: 2,
    Act.KAFKA_UP: 2, Act.STORE_DOWN: 2, Act.STORE_UP: 2, Act.STORE_FAULT: 4, Act.GATE_FAULT: 2,
    Act.EXPORT_FAULT: 2, Act.SAVE_FAULT: 2,
    Act.KILL: 5, Act.RESTART: 3, Act.WAIT: 6, Act.HOLD: 1, Act.RELEASE: 1,
    Act.FOREIGN: 2, Act.CANARY: 1, Act.CANARY_ENDED: 1, Act.DAMAGED: 1, Act.VANISHED: 1,
}  # fmt: skip
_FAULTS = ("LOST_REQUEST", "LOST_ANSWER", "DONE_TWICE", "ALREADY_THERE", "DENIED", "LATE")


def _steps(draw: random.Random, partitions: int, *, real: bool) -> list[Step]:
    """Steps of a few kinds only, other ones in each history: so that they meet often, and not all at once."""
    kinds = draw.sample(list(_CHANCES), k=draw.randint(3, 8))
    weights = [_CHANCES[kind] for kind in kinds]
    records = draw.sample([kind for kind in RECORDS if not (real and kind == "poison")], k=3)
    steps = [_append(draw, partitions, ["good"], real=real)]
    for _ in range(draw.randint(_SHORTEST, _LONGEST)):
        if draw.random() < _COMMON / 8:
            steps.append(_append(draw, partitions, records, real=real))
        else:
            steps.append(_step(draw, draw.choices(kinds, weights)[0], partitions))
    return steps


def _append(draw: random.Random, partitions: int, kinds: list[str], *, real: bool) -> Step:
    kind = draw.choices(kinds, [_RECORD_WEIGHTS[RECORDS.index(kind)] for kind in kinds])[0]
    if real and draw.random() < 0.1:
        kind = "huge"
    return Step(Act.APPEND, (str(draw.randrange(partitions)), kind, str(draw.randint(1, 6))))


def _step(draw: random.Random, act: Act, partitions: int) -> Step:
    part, few = str(draw.randrange(partitions + 1)), str(draw.randint(1, 5))
    words: tuple[str, ...] = ()
    match act:
        case Act.COMMITTED | Act.ABORTED | Act.OPENED | Act.RETENTION | Act.TRUNCATION:
            words = (part, few)
        case Act.FINISHED | Act.COMPACTION:
            words = (part,)
        case Act.TOPIC_ANEW:
            words = (str(draw.choice([1, 1, 2])), str(draw.choice([0, 2, 5, 12])))
        case Act.STORE_FAULT:
            words = (draw.choice(_FAULTS), str(draw.randrange(12)))
        case Act.GATE_FAULT | Act.EXPORT_FAULT | Act.SAVE_FAULT:
            words = (str(draw.choice([1, 1, 1, 3])),)
        case Act.KILL:
            words = (str(draw.randrange(30)), str(draw.choice([0, 0, 1, 2])))
        case Act.RESTART:
            words = (str(draw.choice([0, 0, 1, 2])),)
        case Act.WAIT:
            words = (str(draw.choice([1, 6, 12, 40])),)
        case _:
            pass
    return Step(act, words)


def _fading() -> list[Step]:
    """A model that gets worse by little at a time."""
    steps = [Step(Act.APPEND, ("0", "good", "10")), Step(Act.WAIT, ("6",))]
    for wrong in (1, 2, 2, 3, 3, 4, 4, 5, 5):
        steps.append(Step(Act.APPEND, ("0", "wrong", str(wrong))))
        steps.append(Step(Act.APPEND, ("0", "good", str(5 - wrong))) if wrong < 5 else Step(Act.WAIT, ("1",)))
        steps.append(Step(Act.WAIT, ("6",)))
    return steps
