"""How far a run has come: its counters, the running mean of its returns, and whether it is solved."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from qlearn.config import Config
from qlearn.errors import UsageError
from qlearn.scores import bootstrap_interval, iqm, text
from qlearn.types import Episode, Tick


@dataclass
class Progress:
    """The part of a run's state that only people look at.

    `threshold` is the mean return over `window` episodes that counts as solved; None where there is none.
    """

    window: int
    threshold: float | None
    tick: Tick = field(default_factory=Tick)
    episodes: int = 0
    returns: deque[float] = field(default_factory=deque)  # the last `window`
    best_mean_return: float | None = None
    solved_at_episode: int | None = None
    solved_at_step: int | None = None
    wall_seconds: float = 0.0

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last `window` episodes, or of all where there are fewer."""
        return sum(self.returns) / len(self.returns) if self.returns else None

    @property
    def solved(self) -> bool:
        """Whether the mean of a full window has ever reached the threshold."""
        return self.solved_at_episode is not None

    def add(self, episode: Episode, steps: int) -> None:
        """Count an episode that ended at environment step `steps`."""
        self.episodes += 1
        self.returns.append(episode.episode_return)
        if len(self.returns) > self.window:
            self.returns.popleft()
        mean = self.mean_return
        assert mean is not None
        if len(self.returns) < self.window:
            return
        if self.best_mean_return is None or mean > self.best_mean_return:
            self.best_mean_return = mean
        if not self.solved and self.threshold is not None and mean >= self.threshold:
            self.solved_at_episode, self.solved_at_step = self.episodes, steps

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "steps": self.tick.steps,
            "updates": self.tick.updates,
            "episodes": self.episodes,
            "returns": list(self.returns),
            "best_mean_return": self.best_mean_return,
            "solved_at_episode": self.solved_at_episode,
            "solved_at_step": self.solved_at_step,
            "wall_seconds": self.wall_seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.tick = Tick(int(state["steps"]), int(state["updates"]))
        self.episodes = int(state["episodes"])
        self.returns = deque(float(r) for r in state["returns"])
        self.best_mean_return = state["best_mean_return"]
        self.solved_at_episode, self.solved_at_step = state["solved_at_episode"], state["solved_at_step"]
        self.wall_seconds = float(state["wall_seconds"])


def threshold(config: Config) -> float | None:
    """The mean return that counts as solved: the configuration's, or what Gymnasium's registry says."""
    if config.reward_threshold is not None:
        return config.reward_threshold
    spec = gym.registry.get(config.env.id.rpartition(":")[2])
    return None if spec is None or spec.reward_threshold is None else float(spec.reward_threshold)


def require_goal(config: Config) -> None:
    """Refuse to train until solved where nothing says what that is."""
    if config.until_solved and threshold(config) is None:
        raise UsageError(f"{config.env.id} has no reward threshold of its own; give --reward-threshold")


def verdict(summary: dict[str, Any], config: Config) -> str:
    """How a run went, in a sentence."""
    mean, goal = summary["mean_return"], summary["reward_threshold"]
    mean_text = (
        "no episode has ended" if mean is None else f"mean return of the last {config.window} episodes {text(mean)}"
    )
    if summary["solved"]:
        return (
            f"Solved in {summary['solved_at_episode']:,} episodes ({summary['solved_at_step']:,} steps): the mean "
            f"return of {config.window} episodes reached {goal:g}. Now: {mean_text}."
        )
    limit = (
        f"the limit of {config.max_episodes:,} episodes"
        if config.max_episodes is not None and summary["episodes"] >= config.max_episodes
        else f"the limit of {config.steps:,} steps"
    )
    if goal is None:
        return f"Done: {limit} was reached after {summary['episodes']:,} episodes; {mean_text}."
    best = summary["best_mean_return"]
    best_text = "" if best is None else f", at best {text(best)}"
    return f"Not solved: {limit} was reached; {mean_text}{best_text} (solved at {goal:g})."


def verdict_of_seeds(summaries: Sequence[dict[str, Any]], config: Config) -> str:
    """How several seeds went, in a sentence."""
    means = np.array([summary["mean_return"] for summary in summaries if summary["mean_return"] is not None])
    if not len(means):
        return f"{len(summaries)} seeds: no episode has ended."
    low, high = bootstrap_interval([means])
    solved = sum(bool(summary["solved"]) for summary in summaries)
    goal = "" if summaries[0]["reward_threshold"] is None else f" {solved} of {len(summaries)} solved."
    return (
        f"{len(summaries)} seeds: the interquartile mean of their mean returns (last {config.window} episodes) is "
        f"{text(float(iqm(means)))}, 95 % interval {text(float(low))} to {text(float(high))}.{goal}"
    )
