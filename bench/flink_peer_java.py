"""A Java function on the same Flink as a peer: compiled, packed with onnxruntime, and submitted.

`bench/java/DigitsScore.java` is the function a Java team would write: Jackson binds the record, onnxruntime
runs it, row by row. Source and sink are those of our job, word for word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyflink

from bench.environments import PeerMissingError
from bench.flink_digits import Bench
from ferryline.deploy.stack.artifacts import ArtifactCache
from ferryline.deploy.stack.errors import InstallError
from ferryline.deploy.stack.home import cache_folder
from ferryline.deploy.stack.versions import JarSet

ONNXRUNTIME = JarSet(
    name="onnxruntime-1.22.0",
    with_dependencies=(),
    alone=("com.microsoft.onnxruntime:onnxruntime:1.22.0",),
    digest="8bfa401c599303cabc3b7ce9682a88a4ab15c3af2b94136aaad4c60a18aa1a7a",
)
CLASS = "DigitsScore"
# the oldest that the stack's Flink runs on
JAVA = "17"

_SOURCE = Path(__file__).parent / "java" / f"{CLASS}.java"
_JOB = Path(__file__).parent / "java" / "submit.py"


@contextmanager
def running_java_job(bench: Bench, folder: Path, *, source: str, sink: str) -> Iterator[None]:
    """The job, cancelled in the end.

    Raises:
        PeerMissingError: there is no compiler or no jar here, or Flink does not take the job.
    """
    jar = packed(folder)
    line = ["-py", str(_JOB), "--jarfile", str(jar), bench.kafka, source, sink, str(bench.model)]
    command, environ = bench.stack.flink_command("run", "-d", *line)
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"JobID (\w+)", ended.stdout)
    if found is None:
        lines = (ended.stderr or ended.stdout).strip().splitlines()
        raise PeerMissingError(f"Flink does not take the job: {lines[-1] if lines else '-'}")
    url = f"{bench.stack.addresses().flink}/jobs/{found[1]}"
    try:
        yield
    finally:
        httpx.patch(url, timeout=10)
        while httpx.get(url, timeout=10).json()["state"] not in {"CANCELED", "FAILED"}:
            time.sleep(0.2)


def packed(folder: Path) -> Path:
    """One jar with the function and onnxruntime, because `flink run` takes one."""
    jar = folder / "peer.jar"
    if not jar.exists():
        runtime, classes = _onnxruntime(), folder / "classes"
        _compile(runtime, classes)
        shutil.copy(runtime, jar)
        with zipfile.ZipFile(jar, "a") as archive:
            for file in classes.rglob("*.class"):
                archive.write(file, file.relative_to(classes))
    return jar


def _onnxruntime() -> Path:
    try:
        cache = ArtifactCache(cache_folder(os.environ), os.environ)
        return cache.jars(ONNXRUNTIME, lambda text: print(text, file=sys.stderr))[0]
    except InstallError as error:
        raise PeerMissingError(str(error)) from error


def _compile(runtime: Path, classes: Path) -> None:
    home = os.environ.get("JAVA_HOME")
    compiler = shutil.which("javac", path=f"{home}/bin" if home else None)
    if compiler is None:
        raise PeerMissingError("there is no javac here; a JDK has it, the Java that the stack brings has not")
    flink = sorted((Path(pyflink.__file__).parent / "lib").glob("*.jar"))
    path = os.pathsep.join(map(str, [runtime, *flink]))
    command = [compiler, "--release", JAVA, "-cp", path, "-d", str(classes), str(_SOURCE)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PeerMissingError(f"javac does not compile it: {ended.stderr.strip().splitlines()[0]}")
