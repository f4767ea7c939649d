"""One server that follows several channels of a model."""

from __future__ import annotations

import numpy as np
import pytest

from ferryline.grpc_server.control import FixedModels
from ferryline.grpc_server.errors import InvalidRequestError, NotReadyError, NotServedError
from ferryline.grpc_server.handlers import InferenceHandlers
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.readiness import readiness
from ferryline.grpc_server.repository import RepositoryHandlers
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, infer, raw_request, scrape, wait_for, wait_until_version

ROW = np.zeros((1, 4), dtype=np.float32)


def two_channels(shop: Shop) -> Models:
    """Version 1 in production, version 2 in staging."""
    shop.publish("m", model_files.plus(1))
    shop.registry.promote("m", shop.publish("m", model_files.plus(2), promote=False), channel="staging")
    return shop.follow("m", "m:staging")


def ask(models: Models, version: str = "", request_id: str = "") -> tuple[str, str]:
    """The version and the channel of the answer."""
    request = raw_request("m", version=version, x=ROW)
    request.id = request_id
    reply = infer(models, request)
    return reply.model_version, reply.parameters["ferry_channel"].string_param


def test_a_request_names_a_version_a_channel_or_nothing(shop: Shop) -> None:
    models = two_channels(shop)
    assert ask(models) == ("1", "production")
    assert ask(models, "production") == ("1", "production")
    assert ask(models, "staging") == ("2", "staging")
    assert ask(models, "1") == ("1", "production")
    assert ask(models, "2") == ("2", "staging")
    assert models.get("m").warm_versions == [1, 2]


def test_channels_move_apart_from_each_other(shop: Shop) -> None:
    models = two_channels(shop)
    shop.registry.promote("m", shop.publish("m", model_files.plus(3), promote=False), channel="staging")
    staging = models.get("m").channel("staging")
    assert staging is not None
    wait_until_version(staging, 3)
    assert (ask(models), ask(models, "staging")) == (("1", "production"), ("3", "staging"))
    # what serves the first channel is said to come from there
    shop.registry.promote("m", 2)
    wait_until_version(models.get("m"), 2)
    assert ask(models, "2") == ("2", "production")


def test_a_canary_is_drawn_in_the_channel_that_is_named(shop: Shop) -> None:
    models = two_channels(shop)
    shop.registry.promote("m", 1, channel="staging", canary=50)
    staging = models.get("m").channel("staging")
    assert staging is not None
    wait_for(lambda: len(staging.by_version) == 2, "the canary")
    ids = [str(number) for number in range(60)]
    assert {ask(models, "staging", each) for each in ids} == {("1", "staging"), ("2", "staging")}
    assert {ask(models, "", each) for each in ids} == {("1", "production")}


def test_what_is_not_there_is_answered_with_what_is(shop: Shop) -> None:
    models = two_channels(shop)
    listed = "warm here: 1 of channel production; 2 of channel staging"
    with pytest.raises(NotServedError, match=f"no warm version 9; {listed}"):
        ask(models, "9")
    with pytest.raises(
        NotServedError, match=f"'blue' is no version and no channel that is followed.*{listed}"
    ):
        ask(models, "blue")
    with pytest.raises(InvalidRequestError, match=f"'Blue!' is no version.*{listed}"):
        ask(models, "Blue!")


def test_a_channel_without_a_version_does_not_hinder_the_others(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    models = shop.follow("m:staging", "m", wait=False)
    wait_until_version(models.get("m").channels[1], 1)
    assert not models.ready
    assert ask(models, "production") == ("1", "production")
    assert ask(models, "1") == ("1", "production")
    for version in ("", "staging"):
        with pytest.raises(NotReadyError, match="following channel 'staging'; nothing is promoted"):
            ask(models, version)
    assert index(models) == [
        ("m", "1", "READY", "serves production"),
        ("m", "staging", "UNAVAILABLE", "nothing is promoted in channel 'staging'"),
    ]
    told = readiness(models)["models"]
    assert {name: (each["ready"], each["warm"]) for name, each in told.items()} == {
        "m": (False, []),
        "m:production": (True, [1]),
    }


def test_digits_mean_a_version_whatever_channels_are_called(shop: Shop) -> None:
    shop.registry.promote("m", shop.publish("m", model_files.plus(1), promote=False), channel="7")
    models = shop.follow("m:7")
    assert ask(models) == ("1", "7")
    with pytest.raises(NotServedError, match="no warm version 7; warm here: 1"):
        ask(models, "7")


def test_readiness_metadata_and_index_know_channels(shop: Shop) -> None:
    models = two_channels(shop)
    handlers = InferenceHandlers(models)
    ready = {
        version: handlers.model_ready(pb.ModelReadyRequest(name="m", version=version)).ready
        for version in ("", "1", "2", "3", "staging", "blue")
    }
    assert ready == {"": True, "1": True, "2": True, "3": False, "staging": True, "blue": False}
    metadata = handlers.model_metadata(pb.ModelMetadataRequest(name="m", version="staging"))
    assert list(metadata.versions) == ["1", "2"]
    assert index(models) == [
        ("m", "1", "READY", "serves production"),
        ("m", "2", "READY", "serves staging"),
    ]


def test_one_version_in_two_channels_is_counted_once_and_told_by_channel(shop: Shop) -> None:
    models = two_channels(shop)
    shop.registry.promote("m", 1, channel="staging")
    staging = models.get("m").channel("staging")
    assert staging is not None
    wait_until_version(staging, 1)
    for version in ("", "production", "staging"):
        assert ask(models, version)[0] == "1"
    found = scrape(models)
    assert found['nv_inference_request_success{model="m",version="1"}'] == 3
    assert found['ferry_model_version{channel="staging",model="m"}'] == 1
    assert found['ferry_warm_versions{channel="staging",model="m"}'] == 2
    assert found['ferry_warm_versions{channel="production",model="m"}'] == 1
    assert staging.follower.report().answered == {"1": 1, "2": 0}
    (one,) = (
        InferenceHandlers(models)
        .model_statistics(pb.ModelStatisticsRequest(name="m", version="1"))
        .model_stats
    )
    assert one.inference_stats.success.count == 3


def index(models: Models) -> list[tuple[str, str, str, str]]:
    reply = RepositoryHandlers(models, FixedModels()).index(pb.RepositoryIndexRequest())
    return [(each.name, each.version, each.state, each.reason) for each in reply.models]
