"""SQL functions on Flink: datagen to blackhole, parallelism 1, steady state by Flink's own counters.

The limit is a pandas function of eight doubles as a person writes it for one model: ONNX Runtime on whole
batches, and nothing else. Ours follow a registry, check each row and count: with the same eight columns, and
with three. All use batches of 10,000 rows and the same kind of model (StandardScaler and SGDClassifier).
FERRY_BENCH_HOME names the folder of a running stack to use.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.flink_digits import Bench, running_bench
from bench.flink_sql_job import COLUMNS
from bench.measure import compare, parse_arguments, report
from ferryline.model_runtime.facts import read_facts

JOB = "bench.flink_sql_job"
ROOT = Path(__file__).parent.parent
LIMIT = "bare pandas function, 8 columns"
CALLS = {
    LIMIT: "Bare(c0, c1, c2, c3, c4, c5, c6, c7)",
    "SQL Predict, 8 columns": "Eight(c0, c1, c2, c3, c4, c5, c6, c7)",
    "SQL Predict, 3 columns": "Three(c0, c1, c2)",
}
DEADLINE = 180.0
WARM_UP = 10.0


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    rounds, seconds = (1, 12.0) if arguments.quick else (3, 25.0)
    rates: dict[str, list[float]] = {name: [] for name in CALLS}
    with tempfile.TemporaryDirectory() as folder, running_bench() as bench:
        functions, model = prepare(bench, Path(folder))
        for turn in range(rounds):
            # who goes first changes each time
            for name in list(rates) if turn % 2 else reversed(rates):
                with running_job(bench, functions, model, CALLS[name]) as job:
                    rates[name].append(steady_rate(job, seconds))
                sys.stderr.write(f"round {turn + 1}: {name}: {rates[name][-1]:,.0f} records/s\n")
    limit = rates.pop(LIMIT)
    report(
        [
            compare(name, "records/s", LIMIT, list(zip(found, limit, strict=True)))
            for name, found in rates.items()
        ],
        arguments,
    )


def prepare(bench: Bench, folder: Path) -> tuple[Path, Path]:
    """Publish both models; the file of functions, and the model of eight numbers."""
    for name, width in (("three", 3), ("eight", COLUMNS)):
        data = train(width)
        (folder / f"{name}.onnx").write_bytes(data)
        manifest = bench.registry.publish(name, data, read_facts(data))
        bench.registry.promote(name, manifest.version)
    functions = folder / "functions.toml"
    functions.write_text(
        f'registry = "{bench.store}"\n'
        '[functions.Three]\nmodel = "three"\n[functions.Eight]\nmodel = "eight"\n'
    )
    return functions, folder / "eight.onnx"


def train(width: int) -> bytes:
    """A classifier of two classes."""
    from skl2onnx import to_onnx

    random = np.random.default_rng(0)
    x = random.normal(size=(1000, width))
    y = (x.sum(axis=1) > 0).astype(np.int64)
    model = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(x, y)
    onnx_model = to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}, target_opset=18)
    return bytes(onnx_model.SerializeToString())


@contextmanager
def running_job(bench: Bench, functions: Path, model: Path, call: str) -> Iterator[str]:
    """The URL of the running job; it is cancelled in the end."""
    given = ["--functions", str(functions), "--model", str(model), "--call", call]
    command, environ = bench.stack.flink_command("run", "-d", "-pym", JOB, *given)
    environ["PYTHONPATH"] = str(ROOT)  # benchmarks are not installed
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    words = result.stdout.split("JobID ")
    assert len(words) > 1, result.stdout + result.stderr
    job = f"{bench.stack.addresses().flink}/jobs/{words[1].split()[0]}"
    try:
        yield job
    finally:
        httpx.patch(job, timeout=10)
        await_true(lambda: ask(job)["state"] == "CANCELED")


def steady_rate(job: str, seconds: float) -> float:
    """Rows per second that left the Python function, over `seconds` or a little more."""
    await_true(lambda: counted(job) > 0)
    time.sleep(WARM_UP)
    first, began = next_change(job)
    time.sleep(seconds)
    last, ended = next_change(job)
    return (last - first) / (ended - began)


def next_change(job: str) -> tuple[int, float]:
    """The counter as soon as Flink has read it anew, and when: it does so every few seconds."""
    before = counted(job)
    await_true(lambda: counted(job) != before)
    return counted(job), time.monotonic()


def counted(job: str) -> int:
    """Rows that left the Python operator."""
    found = 0
    for vertex in ask(job)["vertices"]:
        metrics = f"{job}/vertices/{vertex['id']}/subtasks/metrics"
        names = [item["id"] for item in ask(metrics) if is_python_output(item["id"])]
        if names:
            found += sum(int(item["sum"]) for item in ask(metrics, get=",".join(names)))
    return found


def is_python_output(metric: str) -> bool:
    """Whether it is what `PythonCalc[2]` and its like have given on."""
    return metric.startswith("PythonCalc") and metric.endswith("numRecordsOut")


def ask(url: str, **query: str) -> Any:
    """An answer of Flink's REST interface."""
    return httpx.get(url, params=query, timeout=10).raise_for_status().json()


def await_true(condition: Any) -> None:
    """Return when it is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain for the job"
        time.sleep(0.2)


if __name__ == "__main__":
    main()
