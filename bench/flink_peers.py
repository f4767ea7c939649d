"""The Flink job beside what else scores ONNX on a stream: Beam, a Java function on Flink, Quix Streams.

Same digits records, same model file, one partition, one worker each, the broker on the same machine:
- the Flink job of this project, exactly-once;
- a Java function on the same Flink, exactly-once, that calls onnxruntime row by row;
- Quix Streams, at-least-once (its default), row by row;
- Beam's RunInference with its ONNX handler on the direct runner, in batches of 1000. Its Kafka source needs a
  Java service of its own, so it reads the records from memory and writes nowhere, which is in its favour.
Peers check nothing in a record, keep no dead letters and follow no registry. Rates are those of the steady
state by the broker's clock; Beam's is the difference of a long and a short run. A peer that cannot be
installed or started here is left out, and the reason is printed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from bench.environments import PeerMissingError, environment
from bench.flink_digits import (
    Bench,
    fill,
    json_values,
    output_topic,
    pipeline_text,
    running_bench,
    steady_rate,
)
from bench.flink_job import JSON_TOPIC, flink_job
from bench.flink_peer_java import running_java_job
from bench.measure import Comparison, compare, parse_arguments, report
from ferryline.flink_scoring.options import Guarantee

QUIX = ("quixstreams==3.28.1", f"onnxruntime=={version('onnxruntime')}", "numpy", "orjson")
BEAM_DEADLINE = 600.0
START_DEADLINE = 60.0

Contender = Callable[[], float]


def main() -> None:
    """Measure in turns and print the comparisons."""
    arguments = parse_arguments(__doc__)
    records, rounds = (200_000, 1) if arguments.quick else (1_000_000, 3)
    rates: dict[str, list[tuple[float, float]]] = {}
    with running_bench() as bench, tempfile.TemporaryDirectory() as folder:
        fill(bench.kafka, JSON_TOPIC, json_values(), records)
        peers = contenders(bench, Path(folder), records)
        for turn in range(rounds):
            for name in list(peers):
                pair = measured(name, ours(bench, records), peers[name], ours_first=turn % 2 == 0)
                if pair is None:
                    del peers[name]
                else:
                    rates.setdefault(name, []).append(pair)
    report([comparison(name, pairs) for name, pairs in rates.items()], arguments)


def comparison(name: str, pairs: list[tuple[float, float]]) -> Comparison:
    """Our rate beside a peer's."""
    return compare("Flink job, digits JSON, exactly-once", "records/s", name, pairs)


def measured(
    name: str, our_job: Contender, peer: Contender, *, ours_first: bool
) -> tuple[float, float] | None:
    """Our rate and the peer's, one after the other; None where the peer is not to be had here."""
    try:
        pair = (our_job(), peer()) if ours_first else (peer(), our_job())[::-1]
    except PeerMissingError as error:
        sys.stderr.write(f"left out: {name}: {error}\n")
        return None
    sys.stderr.write(f"ours: {pair[0]:,.0f}, {name}: {pair[1]:,.0f} records/s\n")
    return pair


def ours(bench: Bench, records: int) -> Contender:
    """The job of this project."""
    return lambda: flink_job(bench, JSON_TOPIC, records, Guarantee.EXACTLY_ONCE.value)


def contenders(bench: Bench, folder: Path, records: int) -> dict[str, Contender]:
    """Everyone else; each gives records per second."""
    return {
        "Java function on Flink": lambda: java_function(bench, folder, records),
        f"{QUIX[0].replace('==', ' ')}": lambda: quix(bench, folder, records),
        f"Beam {version('apache-beam')} RunInference, from memory": lambda: beam(bench, folder, records),
    }


def java_function(bench: Bench, folder: Path, records: int) -> float:
    """The same Flink, source and sink, with a Java function between them."""
    topic = output_topic(bench, pipeline_text("java", JSON_TOPIC)[0])
    with running_java_job(bench, folder, source=JSON_TOPIC, sink=topic):
        return steady_rate(bench, topic, records)


def quix(bench: Bench, folder: Path, records: int) -> float:
    """Quix Streams in an environment of its own."""
    name, _ = pipeline_text("quix", JSON_TOPIC)
    topic, python = output_topic(bench, name), environment(QUIX)
    script = Path(__file__).with_name("flink_peer_quix.py")
    command = [str(python), str(script), bench.kafka, JSON_TOPIC, topic, str(bench.model), name]
    with _running(command, folder / f"{name}.log", bench, topic):
        return steady_rate(bench, topic, records)


def beam(bench: Bench, folder: Path, records: int) -> float:
    """Beam's direct runner: what the longer of two runs takes more."""
    short, long = records // 20, records // 4
    seconds = [_beam_seconds(bench, folder, count) for count in (short, long)]
    return (long - short) / (seconds[1] - seconds[0])


def _beam_seconds(bench: Bench, folder: Path, records: int) -> float:
    values = folder / "values.json"
    values.write_bytes(b"\n".join(json_values()))
    command = [sys.executable, "-m", "bench.flink_peer_beam", str(bench.model), str(values), str(records)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BEAM_DEADLINE)
    if ended.returncode:
        raise PeerMissingError(f"Beam fails: {(ended.stderr.strip() or '-').splitlines()[-1]}")
    return float(ended.stdout)


@contextmanager
def _running(command: list[str], log: Path, bench: Bench, topic: str) -> Iterator[None]:
    """A process that has begun to write into the topic."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_DEADLINE
        while not _has_records(bench, topic):
            if process.poll() is not None or time.monotonic() > end:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise PeerMissingError(f"it wrote nothing: {lines[-1] if lines else '-'}")
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def _has_records(bench: Bench, topic: str) -> bool:
    consumer = Consumer({"bootstrap.servers": bench.kafka, "group.id": topic})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1] > 0
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
