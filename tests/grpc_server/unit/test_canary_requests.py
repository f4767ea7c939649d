"""Requests to a model whose channel has a canary."""

from __future__ import annotations

import numpy as np

from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, inline_executor, raw_request, wait_for

ROW = np.zeros((1, 4), dtype=np.float32)


def with_canary(shop: Shop, percent: float) -> Models:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m")
    version = shop.publish("m", model_files.plus(2), promote=False)
    shop.registry.promote("m", version, canary=percent)
    wait_for(lambda: only(models).warm_versions == [1, 2], "the canary")
    return models


def only(models: Models) -> FollowedModel:
    return next(iter(models))


def ask(models: Models, request_id: str = "", version: str = "") -> tuple[str, float]:
    _, made = endpoints(models, executor=inline_executor())
    infer = next(endpoint for endpoint in made if endpoint.name == "ModelInfer")
    request = raw_request("m", version=version, x=ROW)
    request.id = request_id
    reply = pb.ModelInferResponse.FromString(infer(request.SerializeToString()))
    return reply.model_version, float(float_output(reply)[0, 0])


def test_the_id_decides_and_decides_the_same_again(shop: Shop) -> None:
    models = with_canary(shop, 30)
    ids = [f"request-{number}" for number in range(300)]
    answers = [ask(models, request_id) for request_id in ids]
    assert set(answers) == {("1", 1.0), ("2", 2.0)}
    assert 0.2 < sum(version == "2" for version, _ in answers) / len(ids) < 0.4
    assert [ask(models, request_id) for request_id in ids] == answers


def test_a_request_without_an_id_is_drawn_by_lot_and_never_by_the_short_way(shop: Shop) -> None:
    models = with_canary(shop, 50)
    assert {ask(models) for _ in range(100)} == {("1", 1.0), ("2", 2.0)}


def test_a_version_that_is_named_answers_whatever_the_lot(shop: Shop) -> None:
    models = with_canary(shop, 1)
    assert {ask(models, str(number), version="2") for number in range(20)} == {("2", 2.0)}


def test_answers_are_counted_by_version_for_the_heartbeat(shop: Shop) -> None:
    models = with_canary(shop, 50)
    drawn = [ask(models, str(number))[0] for number in range(40)]
    report = only(models).default.follower.report()
    assert report.answered == {"1": drawn.count("1"), "2": drawn.count("2")}
    assert (report.canary_version, report.canary_percent) == (2, 50)


def test_after_a_rollback_the_first_version_answers_all(shop: Shop) -> None:
    models = with_canary(shop, 99)
    shop.registry.rollback("m")
    wait_for(
        lambda: (current := only(models).current) is not None and current.served.generation == 3,
        "generation 3",
    )
    assert {ask(models, str(number)) for number in range(20)} == {("1", 1.0)}
