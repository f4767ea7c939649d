"""A server asked by clients that we did not write, and starts that come to nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from ferryline.grpc_server.client import InferenceError
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer, added
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import DEADLINE, wait_for


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.plus(6), "counted")
    made.publish(model_files.identity("string", ["n"]), "text")
    return made


@pytest.fixture(scope="module")
def server(shared_site: Site) -> Iterator[RunningServer]:
    with shared_site.server("m", "counted", "text", flags=["--max-message-mib", "8"]) as running:
        running.wait_until_healthy()
        yield running


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_tritonclient_infers_and_reads_metadata(server: RunningServer) -> None:
    with triton.InferenceServerClient(server.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata(as_json=True)["name"] == "ferryline"
        found = client.get_model_metadata("m", as_json=True)
        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]

        tensor = triton.InferInput("x", list(ROW.shape), "FP32")
        tensor.set_data_from_numpy(ROW)
        result = client.infer("m", [tensor], outputs=[triton.InferRequestedOutput("y")], request_id="7")
        np.testing.assert_array_equal(result.as_numpy("y"), ROW + 5)
        reply = result.get_response()
        assert (reply.id, reply.model_version) == ("7", "1")
        assert reply.parameters["ferry_generation"].int64_param == 1

        texts = np.array([b"one", "zwölf".encode()], dtype=object)
        tensor = triton.InferInput("x", [2], "BYTES")
        tensor.set_data_from_numpy(texts)
        assert client.infer("text", [tensor]).as_numpy("y").tolist() == texts.tolist()


def test_tritonclient_is_told_what_is_wrong(server: RunningServer) -> None:
    with triton.InferenceServerClient(server.address) as client:
        tensor = triton.InferInput("x", [1, 5], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 5), np.float32))
        with pytest.raises(InferenceServerException) as caught:
            client.infer("m", [tensor])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "input 'x' has shape [1, 5], expected [-1, 4]" in caught.value.message()
        with pytest.raises(
            InferenceServerException, match="this server serves 'm', 'counted', 'text'"
        ) as caught:
            client.infer("other", [tensor])
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_bytes_that_are_no_message_are_an_invalid_argument(server: RunningServer) -> None:
    infer = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        infer(b"\xff\xff\xff", timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/inference.GRPCInferenceService/NoSuchRpc")(b"", timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert server.plus() == 5


def test_messages_up_to_the_limit_pass_and_larger_ones_are_refused(server: RunningServer) -> None:
    row = ROW.nbytes
    many = np.ones((7 * 2**20 // row, 4), np.float32)
    np.testing.assert_array_equal(server.client.infer("m", {"x": many}).outputs["y"], many + 5)
    with pytest.raises(InferenceError, match="RESOURCE_EXHAUSTED"):
        server.client.infer("m", {"x": np.ones((9 * 2**20 // row, 4), np.float32)})
    assert server.plus() == 5


def test_reflection_describes_every_service(server: RunningServer) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    wanted = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    listed, inference, health = stub.ServerReflectionInfo(iter(wanted), timeout=DEADLINE)
    assert [service.name for service in listed.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    for reply, package in ((inference, "inference"), (health, "grpc.health.v1")):
        file = FileDescriptorProto.FromString(reply.file_descriptor_response.file_descriptor_proto[0])
        assert file.package == package


def test_health_follows_every_model(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server("m", "later") as server:
        wait_for(lambda: server.health("m") == "SERVING", "the first model")
        assert (server.health(), server.health("later")) == ("NOT_SERVING", "NOT_SERVING")
        with pytest.raises(grpc.RpcError) as caught:
            server.health("unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(InferenceError, match="UNAVAILABLE: model 'later' does not serve yet") as refused:
            server.plus("later")
        assert "nothing is promoted there yet" in str(refused.value)

        watch = health_pb2_grpc.HealthStub(server.channel).Watch(
            health_pb2.HealthCheckRequest(service="later"), timeout=DEADLINE
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        site.publish(model_files.plus(2), "later")
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert (server.health(), server.plus("later")) == ("SERVING", 2)
        watch.cancel()


def test_our_client_says_where_an_answer_comes_from(shared_site: Site, server: RunningServer) -> None:
    result = server.client.infer("m", {"x": ROW})
    assert (added(result), result.model.version, result.model.generation) == (5, "1", 1)
    assert result.model.digest == shared_site.registry.versions("m").get(1).blob.digest
    with pytest.raises(InferenceError) as caught:
        server.plus(version="8")
    assert (caught.value.code, "warm here: 1" in str(caught.value)) == ("NOT_FOUND", True)


def test_metrics_are_scraped_while_requests_run(server: RunningServer) -> None:
    for _ in range(20):
        server.plus("counted")
    found = server.metrics()
    assert found['nv_inference_request_success{model="counted",version="1"}'] == 20
    assert found['nv_inference_request_duration_us{model="counted",version="1"}'] > 0
    assert found["process_resident_memory_bytes"] > 0
    assert server.metric("ferry_swaps_total", "counted") == 1


def test_many_channels_come_and_go(server: RunningServer) -> None:
    for _ in range(30):
        with grpc.insecure_channel(server.address) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=DEADLINE) == b"\x08\x01"
    assert server.plus() == 5


# --- starts that come to nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "words", "remedy"),
    [
        ("--port", ": the port is in use", "choose another with --port"),
        ("--http-port", " for HTTP", "choose another with --http-port or --host, or go without it"),
        ("--metrics-port", " for metrics", "choose another with --metrics-port"),
    ],
)
@pytest.mark.parametrize("holder", ["another server", "another program"])
def test_a_port_in_use_is_one_clear_line(
    site: Site, server: RunningServer, holder: str, flag: str, words: str, remedy: str
) -> None:
    with ExitStack() as stack:
        if holder == "another server":
            addresses = {"--port": server.address, "--http-port": server.http_address}
            port = addresses.get(flag, server.metrics_url.split("/")[2]).rpartition(":")[2]
        else:
            taken = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
            port = str(taken.getsockname()[1])
        ended = site.run_to_its_end(flags=[flag, port])
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}{words}")
    assert remedy in ended.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--store", "ftp://x"], "'ftp://x' is no store"),
        (["--model", "m@3"], "names a version, and a server follows a channel"),
        (["--port", "99999"], "server_port"),
        (["--log-format", "xml"], "server_log_format"),
    ],
)
def test_wrong_usage_is_one_clear_line(site: Site, flags: list[str], words: str) -> None:
    ended = site.run_to_its_end("n", flags=flags)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
