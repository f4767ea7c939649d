from collections.abc import Set as AbstractSet

import pytest

from ferryline.deploy.stack.errors import PortTakenError, StackUsageError
from ferryline.deploy.stack.ports import Listener, PortChoice, choose_port, choose_ports
from ferryline.registry.cli.edge import ExitCode, exit_code

KAFKA = Listener("kafka", "Kafka", default=9092, flag="--kafka-port", variable="FERRY_KAFKA")
CONTROLLER = Listener("kafka-controller", "Kafka's controller")


def choose(
    *,
    wanted: int | None = None,
    last: int | None = None,
    busy: AbstractSet[int] = frozenset(),
    taken: AbstractSet[int] = frozenset(),
    listener: Listener = KAFKA,
) -> PortChoice:
    picks = iter(range(40000, 40100))
    return choose_port(
        listener,
        wanted=wanted,
        last=last,
        taken=set(taken),
        free=lambda port: port not in busy,
        pick=lambda: next(picks),
    )


def test_the_usual_port_is_taken_first() -> None:
    assert choose() == PortChoice(KAFKA, 9092)


def test_the_port_of_the_last_run_comes_before_the_usual_one() -> None:
    assert choose(last=9192) == PortChoice(KAFKA, 9192)


def test_a_taken_usual_port_gives_way_to_a_free_one_and_is_named() -> None:
    assert choose(busy={9092}) == PortChoice(KAFKA, 40000, instead_of=9092)


def test_a_taken_last_port_falls_back_to_the_usual_one() -> None:
    assert choose(last=9192, busy={9192}) == PortChoice(KAFKA, 9092)


def test_a_listener_without_a_usual_port_takes_any_without_remark() -> None:
    assert choose(listener=CONTROLLER) == PortChoice(CONTROLLER, 40000, instead_of=None)


def test_a_picked_port_is_not_given_twice() -> None:
    assert choose(listener=CONTROLLER, taken={40000, 40001}).port == 40002


def test_a_port_asked_for_is_used() -> None:
    assert choose(wanted=19092, last=9192).port == 19092


def test_a_taken_port_asked_for_is_refused_with_the_remedies() -> None:
    with pytest.raises(PortTakenError, match="19092") as caught:
        choose(wanted=19092, busy={19092})
    assert "--kafka-port" in str(caught.value)
    assert "FERRY_KAFKA" in str(caught.value)
    assert exit_code(caught.value) is ExitCode.USAGE


def test_a_running_server_is_not_moved() -> None:
    with pytest.raises(StackUsageError, match="already runs on port 9092"):
        choose_ports([], wanted={"kafka": 19092}, last={}, running={"kafka": 9092})


def test_asking_for_the_port_a_server_already_has_is_fine() -> None:
    assert choose_ports([], wanted={"kafka": 9092}, last={}, running={"kafka": 9092}) == []


def test_listeners_of_one_run_get_different_ports() -> None:
    choices = choose_ports(
        [KAFKA, CONTROLLER],
        wanted={"kafka": 40000},
        last={"kafka-controller": 40000},
        running={"minio": 40001},
        free=lambda _: True,
        pick=iter([40000, 40001, 40002]).__next__,
    )
    assert [choice.port for choice in choices] == [40000, 40002]
