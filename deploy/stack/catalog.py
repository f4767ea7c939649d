"""The names of the parts, of their processes and of their listeners."""

from collections.abc import Iterable

from ferryline.deploy.stack.errors import StackUsageError
from ferryline.deploy.stack.parts import flink, kafka, minio
from ferryline.deploy.stack.ports import Listener

PROCESSES_OF: dict[str, tuple[str, ...]] = {
    "kafka": (kafka.NAME,),
    "minio": (minio.NAME,),
    "flink": (flink.JOB_MANAGER, flink.TASK_MANAGER),
}
LISTENERS_OF: dict[str, tuple[Listener, ...]] = {
    "kafka": (kafka.BROKER, kafka.CONTROLLER),
    "minio": (minio.API,),
    "flink": (flink.REST, flink.RPC, flink.TASK_METRICS, flink.JOB_METRICS),
}
PARTS: tuple[str, ...] = tuple(PROCESSES_OF)
PROCESSES: tuple[str, ...] = tuple(name for names in PROCESSES_OF.values() for name in names)


def check_parts(names: Iterable[str]) -> frozenset[str]:
    """The parts of these names.

    Raises:
        StackUsageError: one of them is no part, or there are none.
    """
    chosen = frozenset(names)
    unknown = sorted(chosen - set(PARTS))
    if unknown or not chosen:
        raise StackUsageError(
            f"no part called {', '.join(unknown) or '(nothing)'}: choose from {', '.join(PARTS)}"
        )
    return chosen


def processes_called(name: str) -> tuple[str, ...]:
    """The processes a part or process name stands for.

    Raises:
        StackUsageError: it is neither.
    """
    if name in PROCESSES_OF:
        return PROCESSES_OF[name]
    if name in PROCESSES:
        return (name,)
    raise StackUsageError(
        f"no part called {name}: choose from {', '.join(dict.fromkeys((*PARTS, *PROCESSES)))}"
    )
