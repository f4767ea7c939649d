"""Following a channel: pure rules, the stages of a candidate, and the thread that performs them."""

from ferryline.model_runtime.follower.announcer import FollowerObserver
from ferryline.model_runtime.follower.driver import Follower, FollowerSettings

__all__ = ["Follower", "FollowerObserver", "FollowerSettings"]
