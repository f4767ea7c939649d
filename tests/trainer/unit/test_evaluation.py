import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ferryline.trainer.evaluation import PrequentialWindow


def test_metrics_are_those_of_scikit_learn_over_the_window(rng: np.random.Generator) -> None:
    truths = rng.integers(0, 3, 500)
    probabilities = rng.dirichlet([1, 1, 1], 500)
    window = PrequentialWindow(200, 3)
    for begin in range(0, 500, 70):
        window.add(window.scored(truths[begin : begin + 70], probabilities[begin : begin + 70]))
    metrics = window.metrics()
    assert len(window) == 200
    assert metrics["accuracy"] == pytest.approx((truths == probabilities.argmax(1))[-200:].mean())
    assert metrics["log_loss"] == pytest.approx(log_loss(truths[-200:], probabilities[-200:]))
    assert "roc_auc" not in metrics
    assert window.accuracy == metrics["accuracy"]


def test_two_classes_have_a_roc_auc_once_both_occurred(rng: np.random.Generator) -> None:
    window = PrequentialWindow(100, 2)
    positive = rng.random(80)
    probabilities = np.column_stack([1 - positive, positive])
    window.add(window.scored(np.zeros(10, dtype=np.int64), probabilities[:10]))
    assert "roc_auc" not in window.metrics()
    truths = rng.integers(0, 2, 70)
    window.add(window.scored(truths, probabilities[10:]))
    everything = np.concatenate([np.zeros(10), truths])
    assert window.metrics()["roc_auc"] == pytest.approx(roc_auc_score(everything, positive))


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    window = PrequentialWindow(10, 2)
    window.add(window.scored(np.array([0]), np.array([[0.0, 1.0]])))
    assert 30 < window.metrics()["log_loss"] < 40


def test_nothing_is_said_before_the_first_prediction() -> None:
    window = PrequentialWindow(10, 2)
    assert window.metrics() == {}
    assert window.accuracy is None


def test_a_window_is_restored_also_into_a_smaller_one(rng: np.random.Generator) -> None:
    window = PrequentialWindow(50, 2)
    window.add(window.scored(rng.integers(0, 2, 50), rng.dirichlet([1, 1], 50)))
    same, smaller = PrequentialWindow(50, 2), PrequentialWindow(20, 2)
    same.restore(window.rows())
    smaller.restore(window.rows())
    assert same.metrics() == window.metrics()
    assert smaller.rows().tolist() == window.rows()[-20:].tolist()
