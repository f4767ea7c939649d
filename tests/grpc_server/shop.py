"""A registry in memory with followers on it: what the server stands on, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, generate_latest

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.datatypes import of_protocol
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import ExecutionPolicy
from ferryline.grpc_server.handlers import InferenceHandlers
from ferryline.grpc_server.inference import InferenceHandler
from ferryline.grpc_server.metrics import ModelCollector
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.grpc_server.tensors import encode_raw
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.model_runtime.pool import WarmLimits
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from ferryline.registry import Registry, TrainingRecord
from ferryline.registry.names import ModelReference
from ferryline.registry.stores.memory import MemoryStore
from tests.support.waiting import wait_for


class Shop:
    """Publishes models, and serves them from followers that poll often."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.registry = Registry(self.store, actor="tester")
        self.warm = WarmLimits()
        self._folder = folder
        self._followers: list[Follower] = []

    def publish(
        self, model: str, data: bytes, training: TrainingRecord | None = None, *, promote: bool = True
    ) -> int:
        version = self.registry.publish(model, data, read_facts(data), training).version
        if promote:
            self.registry.promote(model, version)
        return version

    def follow(
        self, *names: str, wait: bool = True, judged: Callable[[FollowedChannel], object] | None = None
    ) -> Models:
        channels = []
        for name in names:
            reference = ModelReference.parse(name)
            follower = Follower(
                self.registry,
                reference.model,
                reference.channel_or_default,
                cache=self._folder / "cache",
                settings=FollowerSettings(poll_interval=0.01, warm=self.warm),
            )
            channels.append(FollowedChannel(follower))
            if judged is not None:
                judged(channels[-1])
            self._followers.append(follower)
            follower.start()
        for channel in channels:
            if wait:
                wait_until_version(channel, None)
        return Models(channels)

    def handlers(self, *names: str) -> InferenceHandlers:
        return InferenceHandlers(self.follow(*names))

    def close(self) -> None:
        for follower in self._followers:
            follower.stop()


def scrape(models: Models) -> dict[str, float]:
    """The metrics of `models` by name and labels."""
    registry = CollectorRegistry()
    registry.register(ModelCollector(models))
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def inline_executor() -> Executor:
    """Runs everything at once, however slow the machine is: for tests without an event loop."""
    return Executor(ExecutionPolicy(inline_ns=10**15))


def infer(models: Models, request: ModelInferRequest) -> ModelInferResponse:
    """The answer of ModelInfer, awaited where it must be."""
    executor = Executor(ExecutionPolicy())

    async def ask() -> ModelInferResponse:
        answer = InferenceHandler(models, executor)(request)
        return answer if isinstance(answer, ModelInferResponse) else await answer

    try:
        return asyncio.run(ask())
    finally:
        executor.close()


def wait_until_version(model: FollowedModel | FollowedChannel, version: int | None) -> None:
    def serves() -> bool:
        current = model.current
        return current is not None and version in (None, current.served.version)

    wait_for(serves, f"version {version} of {model}", pause=0.005)


def text_request(model: str, texts: list[str]) -> ModelInferRequest:
    """A request for one tensor of text `x`, raw."""
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="BYTES", shape=[len(texts)])
    request.raw_input_contents.append(encode_raw(np.array(texts, object), of_protocol("BYTES")))
    return request


def raw_request(model: str, *, version: str = "", **inputs: npt.NDArray[np.float32]) -> ModelInferRequest:
    """A request for float32 tensors, raw."""
    request = ModelInferRequest(model_name=model, model_version=version)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.astype("<f4").tobytes())
    return request


def float_output(reply: ModelInferResponse, name: str = "y") -> npt.NDArray[np.float32]:
    """An output of float32."""
    for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
        if tensor.name == name:
            assert tensor.datatype == "FP32"
            return np.frombuffer(raw, "<f4").reshape(tuple(tensor.shape))
    raise AssertionError(f"no output {name} in {[tensor.name for tensor in reply.outputs]}")
