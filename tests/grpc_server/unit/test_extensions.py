"""Triton's extensions: configuration, statistics, repository, and what is refused."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from ferryline.grpc_server.configuration import configuration, is_batched
from ferryline.grpc_server.control import FixedModels
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.endpoint import Endpoint, endpoints
from ferryline.grpc_server.errors import (
    ControlRefusedError,
    InvalidRequestError,
    NotServedError,
    UnsupportedError,
)
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import BatchPolicy, ExecutionPolicy
from ferryline.grpc_server.handlers import EXTENSIONS, InferenceHandlers
from ferryline.grpc_server.model_statistics import _wall_clock_ms, statistics_of
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.repository import RepositoryHandlers
from ferryline.grpc_server.unserved import SHARED_MEMORY
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, infer, raw_request, wait_until_version

ROWS = np.ones((3, 4), np.float32)


def config_of(models: Models, name: str, **options: object) -> pb.ModelConfig:
    model = models.get(name)
    assert model.current is not None
    return configuration(model.current.served, model.warm_versions, **{"max_message_bytes": 1600, **options})


def test_a_batched_model_says_dims_without_the_batch_and_how_many_rows_fit_a_message(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    config = config_of(shop.follow("m"), "m")
    assert (config.name, config.platform, config.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 1600 // 16
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("x", pb.TYPE_FP32, [4])]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("y", pb.TYPE_FP32, [4])]
    assert list(config.version_policy.specific.versions) == [1]
    assert config.WhichOneof("scheduling_choice") is None
    assert config.parameters["ferry_generation"].string_value == "1"


def test_a_row_of_one_element_is_reshaped_as_triton_has_it(shop: Shop) -> None:
    shop.publish("text", model_files.identity("string", ["n"]))
    (tensor,) = config_of(shop.follow("text"), "text").input
    assert (tensor.data_type, list(tensor.dims)) == (pb.TYPE_STRING, [1])
    assert tensor.HasField("reshape")
    assert list(tensor.reshape.shape) == []


def test_a_model_without_a_batch_says_its_whole_shape(shop: Shop) -> None:
    shop.publish("fixed", model_files.identity("int8", [2, 3]))
    config = config_of(shop.follow("fixed"), "fixed")
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [2, 3])
    assert not config.input[0].HasField("reshape")


def test_batching_is_said_where_it_is_on(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    policy = ExecutionPolicy(batching={"m": BatchPolicy(max_batch_size=32, max_queue_delay_us=500)})
    executor = Executor(policy)
    handlers, _ = endpoints(shop.follow("m"), executor=executor)
    executor.close()
    found = handlers.model_config(pb.ModelConfigRequest(name="m")).config.dynamic_batching
    assert (list(found.preferred_batch_size), found.max_queue_delay_microseconds) == ([32], 500)


def test_only_free_first_dimensions_are_a_batch(shop: Shop) -> None:
    shop.publish("two", model_files.sum_and_difference())
    model = shop.follow("two").get("two")
    assert model.current is not None
    manifest = model.current.served.manifest
    assert is_batched((*manifest.inputs, *manifest.outputs))
    assert not is_batched([manifest.inputs[0].model_copy(update={"shape": (3, -1)})])
    assert not is_batched([manifest.inputs[0].model_copy(update={"shape": ()})])


def test_statistics_are_true(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    handlers = InferenceHandlers(models)
    before = time.time() * 1000
    for _ in range(4):
        infer(models, raw_request("m", x=ROWS))
    with pytest.raises(InvalidRequestError):
        infer(models, raw_request("m", x=ROWS[:, :2]))
    (found,) = handlers.model_statistics(pb.ModelStatisticsRequest(name="m")).model_stats
    stats = found.inference_stats
    assert (found.name, found.version) == ("m", "1")
    assert (found.inference_count, found.execution_count) == (12, 4)
    assert (stats.success.count, stats.fail.count) == (4, 1)
    assert before - 1 <= found.last_inference <= time.time() * 1000 + 1
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert all(part.count == 4 for part in parts)
    assert stats.compute_infer.ns > 0
    assert sum(part.ns for part in parts) == stats.success.ns
    assert stats.fail.ns > 0


def test_statistics_of_every_model_and_of_one_version(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    shop.publish("n", model_files.plus(1))
    models = shop.follow("m", "n")
    shop.publish("m", model_files.plus(2))
    wait_until_version(models.get("m"), 2)
    handlers = InferenceHandlers(models)
    every = handlers.model_statistics(pb.ModelStatisticsRequest()).model_stats
    assert [(each.name, each.version) for each in every] == [("m", "1"), ("m", "2"), ("n", "1")]
    assert every[0].last_inference == 0
    one = handlers.model_statistics(pb.ModelStatisticsRequest(name="m", version="2")).model_stats
    assert [each.version for each in one] == ["2"]
    with pytest.raises(NotServedError, match="no model 'o' here"):
        handlers.model_statistics(pb.ModelStatisticsRequest(name="o"))
    with pytest.raises(NotServedError, match="no warm version 9"):
        handlers.model_statistics(pb.ModelStatisticsRequest(name="m", version="9"))
    assert len(statistics_of(models.get("m"), 1)) == 1


def test_a_moment_becomes_wall_clock_time() -> None:
    assert _wall_clock_ms(0) == 0
    assert _wall_clock_ms(5_000_000, clock=lambda: 7_000_000, wall=lambda: 100_000_000) == 98


def test_waiting_is_what_is_no_work() -> None:
    counters = VersionCounters()
    counters.answered(1, began=0, decoded=10, started=15, ran=35, ended=42)
    assert (counters.input_ns, counters.queue_ns, counters.run_ns, counters.output_ns) == (10, 5, 20, 7)


def test_the_index_tells_what_can_be_asked_and_why_something_cannot(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    models.add(next(shop.follow("later", wait=False).channels()))
    handlers = RepositoryHandlers(models, FixedModels())
    ready, later = handlers.index(pb.RepositoryIndexRequest()).models
    assert (ready.name, ready.version, ready.state, ready.reason) == ("m", "1", "READY", "")
    assert (later.name, later.version, later.state) == ("later", "", "UNAVAILABLE")
    assert later.reason == "nothing is promoted in channel 'production'"
    only = handlers.index(pb.RepositoryIndexRequest(ready=True)).models
    assert [each.name for each in only] == ["m"]
    with pytest.raises(InvalidRequestError, match="no repository 'other'"):
        handlers.index(pb.RepositoryIndexRequest(repository_name="other"))


async def test_fixed_models_are_not_loaded_by_request_and_the_text_is_tritons(shop: Shop) -> None:
    _, found = endpoints(shop.follow())
    rpcs = {rpc.name: rpc for rpc in found}
    for request in (pb.RepositoryModelLoadRequest(model_name="m"), pb.RepositoryModelUnloadRequest()):
        name = type(request).__name__.removesuffix("Request")
        with pytest.raises(ControlRefusedError, match="load / unload is not allowed if polling is enabled"):
            await rpcs[name].ask(request)
    with_config = pb.RepositoryModelLoadRequest(model_name="m")
    with_config.parameters["config"].string_param = "{}"
    with pytest.raises(UnsupportedError, match="'config': files and configurations come from the registry"):
        await rpcs["RepositoryModelLoad"].ask(with_config)
    odd = pb.RepositoryModelUnloadRequest(model_name="m")
    odd.parameters["force"].bool_param = True
    with pytest.raises(InvalidRequestError, match="no parameter 'force'"):
        await rpcs["RepositoryModelUnload"].ask(odd)


@pytest.mark.parametrize("name", [*SHARED_MEMORY, "TraceSetting", "LogSettings"])
def test_what_there_is_not_is_refused_by_name(shop: Shop, name: str) -> None:
    _, found = endpoints(shop.follow())
    rpc: Endpoint[pb.TraceSettingRequest] = next(each for each in found if each.name == name)
    words = (
        "shared memory is not supported" if name in SHARED_MEMORY else "cannot be read or changed by request"
    )
    with pytest.raises(UnsupportedError, match=words):
        rpc(b"\x0a\x01m" if name in SHARED_MEMORY else b"")


def test_what_is_advertised_is_served(shop: Shop) -> None:
    handlers, found = endpoints(shop.follow())
    names = {rpc.name for rpc in found}
    metadata = handlers.server_metadata(pb.ServerMetadataRequest())
    assert tuple(metadata.extensions) == EXTENSIONS
    needed = {
        "statistics": "ModelStatistics",
        "model_configuration": "ModelConfig",
        "model_repository": "RepositoryIndex",
    }
    assert {needed[each] for each in EXTENSIONS if each in needed} <= names
    assert not {"system_shared_memory", "cuda_shared_memory", "trace", "logging", "sequence"} & set(
        EXTENSIONS
    )


def test_where_an_answer_comes_from_is_said_beside_it_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from ferryline.grpc_server.provenance import Provenance
    from ferryline.registry import TrainingRecord
    from ferryline.registry.documents import Lineage

    newest = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(
        "ferryline.grpc_server.provenance.time", SimpleNamespace(time=lambda: newest.timestamp() + 90)
    )
    lineage = Lineage(topic="t", offsets=(), records=1, newest_event_time=newest)
    shop.publish("m", model_files.plus(1), TrainingRecord(lineage=lineage))
    shop.publish("bare", model_files.plus(1))
    models = shop.follow("m", "bare")
    offering, bare = models.get("m").current, models.get("bare").current
    assert offering is not None
    assert bare is not None
    said = dict(Provenance(offering.served).metadata())
    assert (said["ferry-version"], said["ferry-generation"]) == ("1", "1")
    assert said["ferry-digest"] == offering.served.digest
    assert said["ferry-data-age-seconds"] == "90"
    assert "ferry-data-age-seconds" not in dict(bare.provenance.metadata())
    assert offering.provenance.metadata() is offering.provenance.metadata()
