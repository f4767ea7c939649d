"""Where the stack keeps its things: the data of one stack, and the cache that all stacks share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ferryline.registry.folders import user_folder


@dataclass(frozen=True)
class StackHome:
    """The folder of one stack; two stacks with different folders never touch each other."""

    root: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "StackHome":
        """The folder FERRY_STACK_HOME names, else one under the user's state directory."""
        given = environ.get("FERRY_STACK_HOME")
        return cls((Path(given).expanduser() if given else user_folder("state") / "stack").absolute())

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        """The broker's configuration and topics."""
        return self.root / "kafka"

    @property
    def minio(self) -> Path:
        """The buckets."""
        return self.root / "minio"

    @property
    def flink(self) -> Path:
        """Flink's configuration, its links to jars and its scratch files."""
        return self.root / "flink"

    @property
    def state_file(self) -> Path:
        """What runs; survives `down` so that the next `up` keeps its ports."""
        return self.root / "state.json"

    @property
    def lock_file(self) -> Path:
        """Held while the stack is being changed."""
        return self.root / "lock"

    def create(self) -> None:
        """Make the folders, readable by their owner alone: they hold credentials."""
        for folder in (self.root, self.logs, self.kafka, self.minio, self.flink):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log_of(self, name: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{name}.log"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The folder FERRY_CACHE names, else the user's cache directory; shared by every stack."""
    given = environ.get("FERRY_CACHE")
    return (Path(given).expanduser() if given else user_folder("cache")).absolute()
