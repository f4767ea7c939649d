"""The real server, asked by clients that we did not write."""

from __future__ import annotations

import socket

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from grpc_server.client import InferenceError
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ROW, START_SECONDS, Site, added
from tests.grpc_server.shop import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_tritonclient_infers_and_reads_metadata(site: Site) -> None:
    site.publish(model_files.plus(5))
    site.publish(model_files.identity("string", ["n"]), "text")
    with site.server("m", "text") as server, triton.InferenceServerClient(server.address) as client:
        server.wait_until_healthy()
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata(as_json=True)["name"] == "modelferry"
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


def test_tritonclient_is_told_what_is_wrong(site: Site) -> None:
    site.publish(model_files.plus(5))
    with site.server() as server, triton.InferenceServerClient(server.address) as client:
        server.wait_until_healthy()
        tensor = triton.InferInput("x", [1, 5], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 5), np.float32))
        with pytest.raises(InferenceServerException) as caught:
            client.infer("m", [tensor])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert "input 'x' has shape [1, 5], expected [-1, 4]" in caught.value.message()
        with pytest.raises(InferenceServerException, match="this server serves 'm'") as caught:
            client.infer("other", [tensor])
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_bytes_that_are_no_message_are_an_invalid_argument(site: Site) -> None:
    site.publish(model_files.plus(5))
    with site.server() as server:
        server.wait_until_healthy()
        infer = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            infer(b"\xff\xff\xff", timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            server.channel.unary_unary("/inference.GRPCInferenceService/NoSuchRpc")(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.plus() == 5


def test_messages_up_to_the_limit_pass_and_larger_ones_are_refused(site: Site) -> None:
    site.publish(model_files.plus(5))
    row = ROW.nbytes
    with site.server(flags=["--max-message-mib", "8"]) as server:
        server.wait_until_healthy()
        many = np.ones((7 * 2**20 // row, 4), np.float32)
        np.testing.assert_array_equal(server.client.infer("m", {"x": many}).outputs["y"], many + 5)
        with pytest.raises(InferenceError, match="RESOURCE_EXHAUSTED"):
            server.client.infer("m", {"x": np.ones((9 * 2**20 // row, 4), np.float32)})
        assert server.plus() == 5


def test_reflection_describes_every_service(site: Site) -> None:
    with site.server() as server:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        wanted = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ]
        listed, inference, health = stub.ServerReflectionInfo(iter(wanted), timeout=5)
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
        wait_for(lambda: server.health("m") == "SERVING", "the first model", START_SECONDS)
        assert (server.health(), server.health("later")) == ("NOT_SERVING", "NOT_SERVING")
        with pytest.raises(grpc.RpcError) as caught:
            server.health("unknown")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(InferenceError, match="UNAVAILABLE: model 'later' does not serve yet") as refused:
            server.plus("later")
        assert "nothing is promoted there yet" in str(refused.value)

        watch = health_pb2_grpc.HealthStub(server.channel).Watch(
            health_pb2.HealthCheckRequest(service="later"), timeout=30
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        site.publish(model_files.plus(2), "later")
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert (server.health(), server.plus("later")) == ("SERVING", 2)
        watch.cancel()


def test_our_client_says_where_an_answer_comes_from(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        result = server.client.infer("m", {"x": ROW})
        assert (added(result), result.model.version, result.model.generation) == (1, "1", 1)
        assert result.model.digest == site.registry.versions("m").get(1).blob.digest
        with pytest.raises(InferenceError) as caught:
            server.plus(version="8")
        assert (caught.value.code, "warm here: 1" in str(caught.value)) == ("NOT_FOUND", True)


def test_metrics_are_scraped_while_requests_run(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        for _ in range(20):
            server.plus()
        found = server.metrics()
        assert found['nv_inference_request_success{model="m",version="1"}'] == 20
        assert found['nv_inference_request_duration_us{model="m",version="1"}'] > 0
        assert found["process_resident_memory_bytes"] > 0
        assert server.metric("ferry_swaps_total") == 1


@pytest.mark.parametrize(
    ("flag", "remedy"), [("--port", "choose another with --port"), ("--metrics-port", "with --metrics-port")]
)
def test_a_port_in_use_is_one_clear_line(site: Site, flag: str, remedy: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = site.run_to_its_end(flags=[flag, port])
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert remedy in ended.stderr


def test_two_servers_cannot_share_a_port_unnoticed(site: Site) -> None:
    with site.server() as server:
        ended = site.run_to_its_end(flags=["--port", server.address.rpartition(":")[2]])
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr


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
