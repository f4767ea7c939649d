"""Properties of the follower's state machine, over histories of a channel with failures anywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.model_runtime.follower import rules
from ferryline.model_runtime.follower.rules import STAGES, Phase, State, Target

DIGESTS = ["sha256:a", "sha256:b", "sha256:c"]


def target(generation: int, version: int) -> Target:
    return Target(generation, version, DIGESTS[version % len(DIGESTS)])


class World:
    """A channel that grows, and a performer of actions whose outcomes hypothesis chooses."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.log: list[Target] = []
        self.served: list[Target] = []
        self.refused: list[Target] = []
        self.passed: list[Phase] = []
        self.newer: list[Target] = []
        self.faults = True

    def grow(self) -> None:
        for _ in range(self.data.draw(st.integers(0, 3), "promotions")):
            self.log.append(target(len(self.log) + 1, self.data.draw(st.integers(1, 4), "version")))

    def perform(self, action: rules.Action) -> rules.Event:
        match action:
            case rules.Poll(after):
                return self._poll(after)
            case rules.RunStage(stage, _):
                return self._run(stage)
            case rules.LookBack():
                return self._look_back()
            case rules.Swap(found):
                assert self.passed == list(STAGES), "a model served that was not taken through every stage"
                self.passed = []
                self.served.append(found)
                return rules.Passed()
            case rules.Refuse(refusal):
                self.refused.append(refusal.target)
                return rules.Woke()
            case rules.Rest():
                self.passed = []
                return rules.Woke()

    def _poll(self, after: int) -> rules.Event:
        self.passed = []
        if self.faults and self.data.draw(st.booleans(), "store down"):
            return rules.Failed("store down")
        if self.faults:
            self.grow()
        self.newer = newer = self.log[after:]
        return rules.Found(newer[-1]) if newer else rules.NothingNew()

    def _look_back(self) -> rules.Event:
        self.passed = []
        assert not self.served, "a follower that serves looked back"
        if self.faults and self.data.draw(st.booleans(), "store down"):
            return rules.Failed("store down")
        behind = [item for item in self.log if item not in self.refused and item not in self.newer]
        return rules.FoundBehind(behind[-1]) if behind else rules.NothingBehind()

    def _run(self, stage: Phase) -> rules.Event:
        outcome = self.data.draw(st.sampled_from("pppfr"), "outcome") if self.faults else "p"
        if outcome == "f":
            return rules.Failed("transient")
        if outcome == "r":
            return rules.Rejected("gate", "bad")
        self.passed.append(stage)
        return rules.Passed()


def run(world: World, state: State, action: rules.Action, steps: int) -> tuple[State, rules.Action]:
    for _ in range(steps):
        before = state
        state, action = rules.step(state, world.perform(action))
        assert state.handled >= before.handled, "a follower went back"
        assert before.serving is None or state.serving is not None, "a follower stopped serving"
        assert (state.candidate is not None) == isinstance(action, rules.RunStage | rules.Swap)
    return state, action


@given(st.data())
def test_generations_rise_and_refused_ones_never_serve(data: st.DataObject) -> None:
    world = World(data)
    run(world, State(), rules.Poll(0), steps=40)
    generations = [served.generation for served in world.served]
    assert generations == sorted(set(generations))
    assert not set(world.served) & set(world.refused)
    assert len(world.refused) == len(set(world.refused)), "a refused generation was tried again"


@given(st.data())
def test_once_faults_end_the_newest_generation_serves_unless_it_was_refused(data: st.DataObject) -> None:
    world = World(data)
    state, action = run(world, State(), rules.Poll(0), steps=20)
    world.faults = False
    state, _ = run(world, state, action, steps=20)
    if world.log and world.log[-1] not in world.refused:
        assert state.serving == world.log[-1]
        assert state.phase is Phase.SERVING
        assert (state.failures, state.last_error, state.refusal) == (0, None, None)
    assert state.serving == (world.served[-1] if world.served else None)
    good = [item for item in world.log if item not in world.refused]
    assert state.serving is not None or not good, "a good version was there and nothing serves"


def serve(state: State, wanted: Target) -> tuple[State, list[rules.Action]]:
    actions: list[rules.Action] = []
    event: rules.Event = rules.Found(wanted)
    while True:
        state, action = rules.step(state, event)
        actions.append(action)
        if isinstance(action, rules.Poll):
            return state, actions
        event = rules.Passed()


def test_the_stages_come_in_order() -> None:
    _, actions = serve(State(), target(1, 1))
    assert actions == [
        *[rules.RunStage(stage, target(1, 1)) for stage in STAGES],
        rules.Swap(target(1, 1)),
        rules.Poll(1),
    ]


def test_a_newcomer_whose_first_candidate_is_refused_serves_what_came_before() -> None:
    state, _ = rules.step(State(), rules.Found(target(7, 3)))
    state, action = rules.step(state, rules.Rejected("digest", "damaged", "publish again"))
    refusal = rules.Refusal(target(7, 3), "digest", "damaged", "publish again")
    assert action == rules.Refuse(refusal)
    state, action = rules.step(state, rules.Woke())
    assert action == rules.Poll(7), "a newer generation is better than an older one"
    state, action = rules.step(state, rules.NothingNew())
    assert action == rules.LookBack()
    state, action = rules.step(state, rules.FoundBehind(target(4, 2)))
    for _ in (*STAGES, "swap"):
        state, action = rules.step(state, rules.Passed())
    assert (state.serving, state.handled, state.refusal) == (target(4, 2), 7, refusal)
    assert action == rules.Poll(7)
    assert rules.step(state, rules.NothingNew())[1] == rules.Rest()


def test_a_newcomer_that_finds_the_store_down_behind_it_comes_back_later_each_time() -> None:
    state, _ = rules.step(State(), rules.Found(target(7, 3)))
    state, _ = rules.step(state, rules.Rejected("digest", "damaged"))
    for failures in (1, 2, 3):
        state, _ = rules.step(state, rules.Woke())
        state, action = rules.step(state, rules.NothingNew())
        assert action == rules.LookBack()
        state, _ = rules.step(state, rules.FoundBehind(target(4, 2)))
        state, action = rules.step(state, rules.Failed("store down"))
        assert action == rules.Rest(failures)
    state, _ = rules.step(state, rules.NothingNew())
    assert state.last_error == "store down", "nothing was mended by a poll"
    state, action = rules.step(state, rules.NothingBehind())
    assert (state.failures, state.last_error, action) == (0, None, rules.Rest())


def stalled(tries: int) -> tuple[State, rules.Action]:
    """A newcomer whose candidate failed so often."""
    state, action = State(), rules.Poll(0)
    for _ in range(tries):
        state, _ = rules.step(state, rules.Found(target(7, 3)))
        state, action = rules.step(state, rules.Failed("the file is not there"))
    return state, action


def test_a_newcomer_whose_candidate_fails_for_now_looks_back_and_goes_on_trying() -> None:
    tries = rules.TRIES_BEFORE_LOOKING_BACK
    assert stalled(tries - 1)[1] == rules.Rest(tries - 1)
    state, action = stalled(tries)
    assert action == rules.LookBack()
    state, _ = rules.step(state, rules.FoundBehind(target(4, 2)))
    state, action = rules.step(state, rules.Failed("nor is this one"))
    assert action == rules.LookBack(), "there may be an older one"
    state, _ = rules.step(state, rules.FoundBehind(target(3, 1)))
    for _ in (*STAGES, "swap"):
        state, action = rules.step(state, rules.Passed())
    assert (state.serving, state.handled, action) == (target(3, 1), 3, rules.Poll(3))
    state, _ = rules.step(state, rules.Found(target(7, 3)))
    state, action = rules.step(state, rules.Failed("the file is not there"))
    assert (state.serving, action) == (target(3, 1), rules.Rest(1))


@pytest.mark.parametrize("for_now", [False, True])
def test_a_newcomer_with_nothing_to_look_back_to_goes_on_trying(*, for_now: bool) -> None:
    state, _ = stalled(rules.TRIES_BEFORE_LOOKING_BACK)
    state, action = rules.step(state, rules.NothingBehind(for_now=for_now))
    assert action == rules.Rest(rules.TRIES_BEFORE_LOOKING_BACK)
    assert (state.stalls, state.last_error) == (False, "the file is not there")


def test_a_candidate_that_nobody_trusts_leaves_its_number_free() -> None:
    state, _ = serve(State(), target(1, 1))
    forged = replace(target(2, 9), trusted=False)
    state, _ = rules.step(state, rules.Found(forged))
    state, action = rules.step(state, rules.Rejected("signature", "not signed", at_fault=forged))
    assert isinstance(action, rules.Refuse)
    assert (state.handled, state.refusal and state.refusal.target) == (1, forged)
    state, _ = serve(state, target(2, 2))
    assert (state.serving, state.handled, state.refusal) == (target(2, 2), 2, None)


def test_what_is_found_instead_of_a_swap_is_taken_through_every_stage() -> None:
    state, _ = serve(State(), target(1, 1))
    state, action = rules.step(state, rules.Found(target(2, 2)))
    for _ in STAGES:
        state, action = rules.step(state, rules.Passed())
    assert action == rules.Swap(target(2, 2))
    state, action = rules.step(state, rules.Found(target(3, 1)))
    assert (state.serving, action) == (target(1, 1), rules.RunStage(Phase.FETCHING, target(3, 1)))


def test_a_refusal_is_that_of_the_version_at_fault() -> None:
    state, _ = serve(State(), target(1, 1))
    state, _ = rules.step(state, rules.Found(target(2, 1)))
    state, action = rules.step(state, rules.Rejected("digest", "damaged", at_fault=target(2, 9)))
    assert action == rules.Refuse(rules.Refusal(target(2, 9), "digest", "damaged"))
    assert state.handled == 2


def test_who_serves_does_not_look_back() -> None:
    state, _ = serve(State(), target(1, 1))
    state, _ = rules.step(state, rules.Found(target(2, 2)))
    state, _ = rules.step(state, rules.Rejected("digest", "damaged"))
    assert rules.step(state, rules.NothingNew())[1] == rules.Rest()


def test_a_channel_that_goes_backwards_is_a_failure_and_serves_on() -> None:
    state, _ = serve(State(), target(5, 1))
    state, action = rules.step(state, rules.Found(target(4, 2)))
    assert state.serving == target(5, 1)
    assert action == rules.Rest(1)
    assert "went backwards" in (state.last_error or "")


@pytest.mark.parametrize("event", [rules.Passed(), rules.Rejected("gate", "reason")])
def test_what_cannot_follow_is_the_callers_fault(event: rules.Event) -> None:
    with pytest.raises(ValueError, match="no candidate"):
        rules.step(State(), event)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_retries_come_later_and_later_up_to_a_bound(retry: int, fraction: float) -> None:
    pause = rules.retry_pause(retry, fraction)
    assert rules.FIRST_RETRY / 2 <= pause <= rules.LAST_RETRY
    assert rules.retry_pause(retry + 1, fraction) >= pause


def test_a_fall_back_leads_to_what_served_before_and_refuses_what_it_leaves() -> None:
    state, _ = serve(State(), target(1, 1))
    state, _ = serve(state, target(2, 2))
    state, action = rules.step(state, rules.Regressed(target(2, 2), target(1, 1), "slow"))
    refusal = rules.Refusal(
        target(2, 2), rules.REGRESSION, "slow", "Promote a newer version once the cause is known"
    )
    assert action == rules.FallBack(refusal)
    assert (state.serving, state.handled, state.phase) == (target(1, 1), 2, Phase.SERVING)
    state, action = rules.step(state, rules.FellBack())
    assert action == rules.Refuse(refusal)
    state, action = rules.step(state, rules.Woke())
    assert action == rules.Poll(2), "what was left is not looked for again"
    state, _ = serve(state, target(3, 2))
    assert (state.serving, state.refusal) == (target(3, 2), None)


def test_what_regressed_and_serves_no_more_is_no_news() -> None:
    state, _ = serve(State(), target(1, 1))
    state, _ = serve(state, target(2, 2))
    again, action = rules.step(state, rules.Regressed(target(1, 1), target(2, 2), "slow"))
    assert (again, action) == (state, rules.Poll(2))
    with pytest.raises(ValueError, match="nothing was refused"):
        rules.step(state, rules.FellBack())


@given(st.lists(st.booleans(), max_size=20))
def test_whatever_falls_back_goes_on_serving_and_takes_what_is_newer(regresses: list[bool]) -> None:
    state, _ = serve(State(), target(1, 1))
    for generation, falls in enumerate(regresses, start=2):
        before, newer = state.serving, target(generation, generation)
        state, _ = serve(state, newer)
        if falls and before is not None:
            state, _ = rules.step(state, rules.Regressed(newer, before, "slow"))
            state, _ = rules.step(state, rules.FellBack())
        assert state.serving == (before if falls else newer)
        assert state.handled == generation
        assert (state.refusal is not None) == falls
