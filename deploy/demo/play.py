"""The demo itself: starts everything, shows it, and with a time limit plays the script to its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sklearn.datasets import load_digits

from ferryline.deploy.demo.caller import Caller
from ferryline.deploy.demo.display import Display
from ferryline.deploy.demo.errors import DemoFailedError
from ferryline.deploy.demo.services import (
    ScoringJob,
    Service,
    command_path,
    interrupts_held,
    run_to_end,
    running,
)
from ferryline.deploy.demo.snapshot import Observer, Snapshot
from ferryline.deploy.demo.streamwatch import StreamWatch
from ferryline.deploy.demo.summary import faults, summarise
from ferryline.deploy.demo.view import one_line
from ferryline.deploy.stack.local import LocalStack
from ferryline.deploy.stack.ports import any_free, is_free
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.names import ModelReference
from ferryline.streams.kafka import ensure_topics
from ferryline.streams.pipeline import Pipeline, load_pipeline

GENERATIONS_WANTED = 4
"""A first version, and three that were swapped in."""
LOOK_SECONDS = 0.25
DRAIN_SECONDS = 180.0
ROLLBACK_WAIT_SECONDS = 60
START_SECONDS = 240.0

_GRPC_PORT = 8001
_METRICS_PORT = 8002


@dataclass(slots=True)
class Plan:
    """What the user asked for.

    Args:
        pipeline_file: the pipeline to play.
        rate: records per second.
        faults: the share of records that are broken on purpose.
    """

    pipeline_file: Path
    rate: float
    faults: float


@dataclass(slots=True)
class Stage:
    """Everything that runs while the demo plays."""

    pipeline: Pipeline
    environ: Mapping[str, str]
    addresses: dict[str, str]
    registry: Registry
    feed: Service
    watch: StreamWatch
    caller: Caller
    observer: Observer
    display: Display
    services: list[Service] = field(default_factory=list)

    def look(self, doing: str) -> Snapshot:
        """Check that everything lives, take a snapshot and show it."""
        for service in self.services:
            service.require_alive()
        shot = self.observer.look()
        self.display.show(shot, self.addresses, doing)
        return shot

    def wait(self, doing: str, reached: Callable[[Snapshot], bool], deadline: float) -> Snapshot:
        """Show the demo until `reached`.

        Raises:
            DemoFailedError: a service ended, or `deadline` (of the monotonic clock) passed.
        """
        while True:
            shot = self.look(doing)
            if reached(shot):
                return shot
            if time.monotonic() > deadline:
                raise DemoFailedError(f"gave up {doing}; the last state was: {one_line(shot, doing)}")
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def stage(stack: LocalStack, plan: Plan, display: Display) -> Iterator[Stage]:
    """Start everything on a running stack, and stop it again."""
    pipeline = load_pipeline(plan.pipeline_file)
    addresses = stack.addresses()
    environ = addresses.environ()
    logs = stack.home.logs
    scoring = pipeline.require_scoring()
    ensure_topics(addresses.kafka, {pipeline.source.topic: 1, scoring.topic: 1, scoring.dead_letters: 1})
    ports = {"grpc": _port(_GRPC_PORT), "metrics": _port(_METRICS_PORT), "trainer": any_free()}
    services: list[Service] = []
    with contextlib.ExitStack() as cleanup:
        watch = StreamWatch(addresses.kafka, pipeline)
        watch.start()
        cleanup.callback(watch.stop)
        cleanup.enter_context(running(services))

        def begin(name: str, *command: str) -> Service:
            with interrupts_held():
                service = Service.start(name, [command_path(command[0]), *command[1:]], environ, logs)
                services.append(service)
            return service

        display.say("starting the trainer, the feed and the server")
        state = str(stack.home.root / "trainer")
        begin("trainer", "ferry-trainer", "run", str(plan.pipeline_file), "--state", state,
              "--from-scratch", "--metrics-port", str(ports["trainer"]))  # fmt: skip
        feed = begin("feed", "ferry-feed", "digits", "--seed", "1", "--rate", str(plan.rate),
                     "--faults", str(plan.faults), "-o", "json")  # fmt: skip
        begin("server", "ferry-server", "--model", f"{pipeline.model}:{pipeline.channel}",
              "--port", str(ports["grpc"]), "--no-http", "--metrics-port", str(ports["metrics"]))  # fmt: skip
        display.say("submitting the scoring job with `flink run`")
        job = ScoringJob(stack, plan.pipeline_file, logs)
        cleanup.callback(job.cancel)
        caller = Caller(f"127.0.0.1:{ports['grpc']}", pipeline.model, load_digits().data)
        cleanup.callback(caller.stop)
        registry = Registry.open(addresses.store)
        yield Stage(
            pipeline=pipeline,
            environ=environ,
            addresses=_shown(addresses, ports, logs),
            registry=registry,
            feed=feed,
            watch=watch,
            caller=caller,
            observer=Observer(
                registry,
                pipeline.model,
                pipeline.channel,
                watch=watch,
                caller=caller,
                trainer_metrics=f"http://127.0.0.1:{ports['trainer']}/metrics",
            ),
            display=display,
            services=services,
        )


def play_live(play: Stage) -> None:
    """Show everything until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        _wait_for_first_model(play)
        while True:
            play.look("live; Ctrl-C ends it. In another terminal: ferry rollback " + play.pipeline.model)
            time.sleep(LOOK_SECONDS)


def play_script(play: Stage, seconds: float) -> dict[str, Any]:
    """Play the script and return its summary.

    Raises:
        DemoFailedError: a step did not happen in time.
    """
    started = time.monotonic()
    deadline = started + seconds
    _wait_for_first_model(play)
    play.wait("waiting for three swaps in both consumers", _swapped, deadline)
    rollback = _roll_back(play)
    play.wait("waiting until both serve the older version", lambda shot: _serve(shot, rollback), deadline)
    _stop_feeding(play)
    drained = time.monotonic() + DRAIN_SECONDS
    play.wait(
        "waiting for the last records", lambda shot: shot.scored + shot.dead >= shot.records_in, drained
    )
    play.caller.stop()
    return summarise(
        history=play.observer.history,
        published=play.registry.versions(play.pipeline.model).newest(),
        records_in=play.watch.records_in,
        tally=play.watch.tally,
        calls=play.caller.tally,
        rollback=rollback,
        seconds=time.monotonic() - started,
    )


def require_good(summary: dict[str, Any]) -> None:
    """Return if everything happened.

    Raises:
        DemoFailedError: something did not.
    """
    if found := faults(summary, generations_wanted=GENERATIONS_WANTED):
        raise DemoFailedError("the demo did not do what it should: " + "; ".join(found))


def _wait_for_first_model(play: Stage) -> None:
    deadline = time.monotonic() + START_SECONDS
    play.wait("waiting for the first version", lambda shot: shot.head is not None, deadline)
    play.wait("waiting for the server to be warm", lambda _: play.caller.ready(), deadline)
    play.caller.start()


def _swapped(shot: Snapshot) -> bool:
    return all(served.generations >= GENERATIONS_WANTED for served in (shot.flink, shot.server))


def _serve(shot: Snapshot, entry: ChannelEntry) -> bool:
    wanted = (entry.generation, entry.version)
    return all((served.generation, served.version) == wanted for served in (shot.flink, shot.server))


def _roll_back(play: Stage) -> ChannelEntry:
    reference = ModelReference(play.pipeline.model, channel=play.pipeline.channel)
    play.display.say(f"rolling back: ferry rollback {reference} --wait {ROLLBACK_WAIT_SECONDS}")
    printed = run_to_end(
        [
            command_path("ferry"),
            "rollback",
            str(reference),
            "--wait",
            str(ROLLBACK_WAIT_SECONDS),
            "--reason",
            "the demo rolls back",
            "-o",
            "json",
        ],
        play.environ,
    )
    return ChannelEntry.model_validate(orjson.loads(printed))


def _stop_feeding(play: Stage) -> None:
    play.display.say("stopping the feed")
    play.services.remove(play.feed)
    code = play.feed.stop()
    if code:
        raise DemoFailedError(f"the feed ended with status {code}; see {play.feed.log}")


def _port(usual: int) -> int:
    return usual if is_free(usual) else any_free()


def _shown(addresses: Any, ports: Mapping[str, int], logs: Path) -> dict[str, str]:
    return {
        "Kafka": addresses.kafka,
        "registry": addresses.store,
        "Flink": addresses.flink,
        "gRPC": f"127.0.0.1:{ports['grpc']}",
        "metrics": f"http://127.0.0.1:{ports['metrics']}/metrics",
        "logs": str(logs),
    }
