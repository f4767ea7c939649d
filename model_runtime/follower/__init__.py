"""Following a channel: pure rules, the stages of a candidate, and the thread that performs them."""

from ferryline.model_runtime.follower.driver import Follower, FollowerObserver, FollowerSettings

__all__ = ["Follower", "FollowerObserver", "FollowerSettings"]
