"""Plays a history to its end, with a supervisor that starts the trainer again, and judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ferryline.registry.errors import StoreUnreachableError
from ferryline.streams.errors import UnknownTopicError
from ferryline.trainer.errors import OffsetsLostError
from tests.simulation.training import invariants
from tests.simulation.training.process import Ending, Memory, run_process
from tests.simulation.training.script import History
from tests.simulation.training.truth import TOPIC
from tests.simulation.training.world import World

_SAME_ENDINGS = 4
_PROCESSES = 60


@dataclass(slots=True)
class Played:
    """A history that was played.

    Attributes:
        history: what was played.
        findings: what is wrong; empty where all is well.
        world: as it was at the end.
        endings: how each process ended.
    """

    history: History
    world: World
    findings: list[str] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([str(self.history), *(f"## {finding}" for finding in self.findings)])


def play(history: History, watch: Callable[[str], None] = lambda _line: None) -> Played:
    """Play a history.

    Args:
        history: what happens.
        watch: told what the trainer says, for people who look into a failure.
    """
    world = World(history)
    played = Played(history, world)
    world.told = invariants.Listener(world, watch)
    memory: Memory | None = None
    from_scratch, same = False, 0
    while not world.done:
        ending, memory = run_process(world, from_scratch=from_scratch)
        from_scratch = False
        watch(f"-- {_name(ending)}")
        played.endings.append(ending)
        told = ending.error is None or _is_told(world, ending.error)
        world.pass_while_down()
        if ending.error is None:
            same = 0
            continue
        same = same + 1 if world.is_calm and _name(ending) == _name(played.endings[-2:][0]) else 1
        if _is_remedied_by_learning_anew(world, ending.error):
            world.saved, from_scratch = None, True
            continue
        if not told:
            played.findings.append(f"crash: the trainer ended by {ending.error!r}")
        world.tick()
        if same >= _SAME_ENDINGS:
            played.findings.append(f"crash loop: each start ends by {ending.error!r}")
            break
        if len(played.endings) > _PROCESSES:
            played.findings.append("crash loop: the supervisor gives up")
            break
    played.findings += world.findings
    if world.done and memory is not None:
        played.findings += invariants.judge(world, memory, played.endings)
    played.findings = list(dict.fromkeys(played.findings))
    return played


def _name(ending: Ending) -> str:
    if ending.killed:
        return "killed"
    return "stopped" if ending.error is None else repr(ending.error)


def _is_told(world: World, error: BaseException) -> bool:
    if isinstance(error, UnknownTopicError):
        return TOPIC not in world.broker.topics
    return isinstance(error, StoreUnreachableError) or "cannot be written" in str(error)


def _is_remedied_by_learning_anew(world: World, error: BaseException) -> bool:
    """Whether the trainer refuses to go on from its state, and rightly so."""
    return world.changed and isinstance(error, OffsetsLostError)
