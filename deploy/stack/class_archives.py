"""Class archives (AppCDS, JEP 350): what one Java process loaded and verified, others map into memory.

An archive belongs to one Java and one class path. A process for which it does not fit says nothing and loads
its classes itself, so archives change speed only.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORD_VARIABLE = "FERRY_STACK_RECORD_CLASSES"
"""Names the folder into which a stack writes archives when its processes end."""

KAFKA, CLIENT, JOB_MANAGER, TASK_MANAGER = "kafka", "client", "jobmanager", "taskmanager"

_BASE_ARCHIVE = Path("lib", "server", "classes.jsa")
_LAYOUT = 1
"""Changes when archives of the release before must not be used, as after a change of JVM options."""


@dataclass(frozen=True)
class ClassArchives:
    """The archives of one Java, Kafka and Flink.

    Attributes:
        folder: where they lie; it need not exist.
        recording: whether processes write them instead of using them.
    """

    folder: Path
    recording: bool = False

    def options(self, name: str) -> list[str]:
        """Returns the JVM options of a process, none where it has no archive."""
        file = self.folder / f"{name}.jsa"
        if self.recording:
            return [f"-XX:ArchiveClassesAtExit={file}", "-Xlog:cds*=off"]
        return [f"-XX:SharedArchiveFile={file}", "-Xlog:cds*=off"] if file.exists() else []

    @property
    def missing(self) -> list[str]:
        """The processes that have no archive."""
        every = (KAFKA, CLIENT, JOB_MANAGER, TASK_MANAGER)
        return [name for name in every if not (self.folder / f"{name}.jsa").exists()]


def has_base_archive(java_home: Path) -> bool:
    """Whether a Java has the archive of its own classes, on which all others are built."""
    return (java_home / _BASE_ARCHIVE).exists()


def name_of_java(java_home: Path) -> str:
    """Returns a name that differs between any two builds of Java."""
    said = (java_home / "release").read_bytes() if (java_home / "release").exists() else b""
    size = (java_home / "lib" / "server" / "libjvm.so").stat().st_size if _has_libjvm(java_home) else 0
    return f"java-{_digest([said, str(size).encode()])}"


def name_of_archives(java_home: Path, jars: Sequence[Path]) -> str:
    """Returns the name of the archives for a Java and the jars of all class paths."""
    java = [str(_LAYOUT), str(java_home), name_of_java(java_home)]
    told = [f"{jar} {jar.stat().st_size} {jar.stat().st_mtime_ns}" for jar in jars]
    return f"classes-{_digest([text.encode() for text in (*java, *told)])}"


def archives_of(environ: Mapping[str, str], folder: Path) -> ClassArchives:
    """Returns the archives in a folder, or those to be recorded where the environment says so."""
    recorded = environ.get(RECORD_VARIABLE)
    return ClassArchives(Path(recorded), recording=True) if recorded else ClassArchives(folder)


def name_of_lib(jars: Sequence[Path]) -> str:
    """Returns the name of a folder that holds these jars."""
    return f"flink-lib-{_digest([f'{jar.name} {jar.stat().st_size}'.encode() for jar in sorted(jars)])}"


def _has_libjvm(java_home: Path) -> bool:
    return (java_home / "lib" / "server" / "libjvm.so").exists()


def _digest(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
