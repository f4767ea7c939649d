"""What a version's runs cost, before the first request comes."""

from __future__ import annotations

from time import thread_time_ns

from ferryline.grpc_server.execution.costs import RunCosts
from ferryline.model_runtime.golden import zeros
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.documents import ModelFacts

ROUNDS = 3
LONG_NS = 5_000_000


def probe(session: OnnxSession, facts: ModelFacts, costs: RunCosts, size: int) -> None:
    """Run a warm session on one row of zeros and let `costs` know; for the thread that makes a version ready.

    The processor time of the thread counts, not the clock: under load any model would look slow.
    A model that refuses zeros stays unknown, and the first request finds out on a thread.
    """
    feeds = zeros(facts)
    for _ in range(ROUNDS):
        began = thread_time_ns()
        try:
            session.run(feeds)
        except ValueError:
            return
        took = thread_time_ns() - began
        costs.saw(size, took)
        if took > LONG_NS:  # long enough to be exact
            return
