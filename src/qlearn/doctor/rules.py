"""The rules of a run: what each makes sure of, and the function that judges it."""

from collections.abc import Callable

from qlearn.doctor import experience, learning, predictions
from qlearn.doctor.evidence import Evidence
from qlearn.doctor.report import Verdict

RULES: tuple[tuple[str, Callable[[Evidence], Verdict | None]], ...] = (
    ("rewards are seen, and returns differ", experience.rewarded),
    ("observations reach the network at a size near 1", experience.scaled),
    ("observations change", experience.changing),
    ("the frames of a stack differ", experience.moving),
    ("time limits are not taken for terminations", experience.bootstrapped),
    ("updates are made", learning.updated),
    ("the loss is a number, and not 0", learning.finite),
    ("the learning rate is small beside the weights", learning.gentle),
    ("gradients are not clipped all the time", learning.free),
    ("the target network is synchronised", learning.synchronised),
    ("epsilon falls before the end", learning.decayed),
    ("units are not dormant", learning.awake),
    ("prioritised replay leaves the minibatch in effect", learning.even),
    ("Q stays within r_max / (1 - gamma)", predictions.bounded),
    ("Q does not rise alone, without the returns", predictions.rising),
    ("what the network promises is earned", predictions.overestimated),
    ("C51's atoms reach as far as the returns", predictions.supported),
    ("actions differ from observation to observation", predictions.varied),
    ("the greedy policy does what training did", experience.alike),
    ("the environment does not take all the time", learning.balanced),
)
