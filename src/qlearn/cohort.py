"""Many seeds at once: runs that differ in their seed alone share one loop, and one call for the updates of all.

Each has its own environments, replay memory, networks, generators and counters, and goes as it would alone; only where
they lie in memory, and that the calls are shared, is different. The loop is that of `dqn.train`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qlearn.actor import Actor
from qlearn.build import Parts
from qlearn.build.pieces import build_epsilon, build_learning_rate
from qlearn.dqn import Learner
from qlearn.engine import Stacked
from qlearn.errors import EnvError, NotFiniteError, QlearnError
from qlearn.replay import Uniform, enough
from qlearn.types import Array, Episode, Steps, Tick


def train(members: Sequence[Parts], live: list[bool]) -> Iterator[list[Tick | QlearnError | None]]:
    """Train, and yield for each member its `Tick` or what ended it, after each step of the environments.

    Args:
        members: the runs, built and not yet begun, of the algorithm dqn.
        live: those that go on; the caller takes out who is done, and this does who failed.
    """
    config, count = members[0].config, len(members)
    lanes, memories = Lanes(members, live), Memories(members)
    learners = Learners(members, memories)
    actor = Actor(lanes, learners.q_values, Dice(members), stack=config.env.frame_stack)
    for place, member in enumerate(members):
        member.actor.part_of = actor, part(place, lanes.width)
    learning_rate = build_learning_rate(config)
    epsilon, width = build_epsilon(config), config.env.num_envs
    ratio, warmup, every = config.learner.replay_ratio, config.replay.warmup_steps, config.learner.target_update_steps
    # Episodes end at different times, so the members' steps drift apart. Updates that are due wait for the next turn at
    # which those of all are made: for less than the steps that lie between two updates.
    turns, together = 0, max(1, round(1 / ratio))
    steps, updates = np.zeros(count, np.int64), np.zeros(count, np.int64)
    while any(live):
        before = np.maximum(0, steps - warmup)
        rates = [epsilon(s - warmup) if s >= warmup else 1.0 for s in steps.tolist()]
        spread = rates if width == 1 else np.concatenate([np.broadcast_to(rate, width) for rate in rates])
        rows, episodes = actor.rollout(np.asarray(spread))
        steps += memories.append(rows, actor.final)
        now, turns = np.maximum(0, steps - warmup), turns + 1
        while turns % together == 0 and memories.ready:
            due = np.array(live) & (updates < (now * ratio).astype(np.int64))
            if not np.count_nonzero(due):
                break
            index, weight = memories.sample(config.learner.batch_size, due)
            memories.reweigh(index, learners.update(due, index, weight, lanes.errors), due)
            updates += due
        for i in np.flatnonzero(now // every > before // every):
            learners.all[i].synchronize()
        for learner, made in zip(learners.all, steps.tolist(), strict=True):
            learner.set_learning_rate(learning_rate(made))
        yield lanes.outcomes(
            [Tick(*made) for made in zip(steps.tolist(), updates.tolist(), rates, strict=True)], episodes
        )


def part(i: int, width: int) -> slice:
    """Where the environments of member i are among those of all."""
    return slice(i * width, (i + 1) * width)


class Lanes:
    """The environments of all members side by side, those of a member next to each other."""

    def __init__(self, members: Sequence[Parts], live: list[bool]) -> None:
        self._envs, self._live = [m.envs for m in members], live
        self.space, self.width = members[0].envs.space, members[0].envs.num_envs
        self.num_envs = self.width * len(members)
        self.errors: list[QlearnError | None] = [None] * len(members)
        self._obs = np.concatenate([m.actor.obs for m in members])

    @property
    def mask(self) -> Array | None:
        """The actions allowed, `[S * E, A]`."""
        masks = [envs.mask for envs in self._envs if envs.mask is not None]
        return np.concatenate(masks) if masks else None

    @property
    def lost(self) -> Array | None:
        """Whose last step came to nothing, `[S * E]`."""
        if all(envs.lost is None for envs in self._envs):
            return None
        nobody = np.zeros(self.width, np.bool_)
        return np.concatenate([nobody if envs.lost is None else envs.lost for envs in self._envs])

    def reset(self) -> Array:
        """The observations at which the members' actors stand; they have begun their first episodes."""
        return self._obs.copy()

    def step(self, action: Array) -> tuple[Array, Array, Array, Array]:
        """One step of each member that goes on; what happens to one is not the others' affair."""
        reward = np.zeros(self.num_envs)
        terminated, done = np.zeros((2, self.num_envs), np.bool_)
        for i, envs in enumerate(self._envs):
            if self._live[i] and self.errors[i] is None:
                own = part(i, self.width)
                try:
                    envs.advance(action[own], reward[own], terminated[own], done[own])
                    self._obs[own] = envs.obs
                except EnvError as error:
                    self.errors[i] = error
        return self._obs.copy(), reward, terminated, done

    def outcomes(self, ticks: list[Tick], episodes: Sequence[Episode]) -> list[Tick | QlearnError | None]:
        """What to yield: the ticks of those that go on, with their `episodes`, and errors."""
        for e in episodes:
            i, env = divmod(e.env, self.width)
            ticks[i] = ticks[i]._replace(episodes=[*ticks[i].episodes, Episode(e.episode_return, e.length, env)])
        return [(e or t) if on else None for t, e, on in zip(ticks, self.errors, self._live, strict=True)]

    def abandon(self, env: int) -> None:
        """End the episode of one environment."""
        self._envs[env // self.width].abandon(env % self.width)

    def close(self) -> None:
        """Nothing: the members close theirs."""


class Dice:
    """The members' generators as one: each draws for its own environments."""

    def __init__(self, members: Sequence[Parts]) -> None:
        self._generators, self._width = [m.actor.rng for m in members], members[0].envs.num_envs

    def random(self, size: tuple[int, int]) -> Array:
        """Uniform numbers `[N, S * E]`."""
        return np.concatenate([rng.random((size[0], self._width)) for rng in self._generators], axis=1)


class Memories:
    """The replay memories of all members, in one memory: `[S, rows, E, ...]` for each column."""

    def __init__(self, members: Sequence[Parts]) -> None:
        self.all = [m.replay for m in members if m.replay is not None]
        self._width = self.all[0].ring.num_envs
        self._uniform = [replay for replay in self.all if isinstance(replay, Uniform)]  # all, or none
        self._arrays = {k: np.zeros((len(self.all), *v.shape), v.dtype) for k, v in self.all[0].ring.columns.items()}
        for i, replay in enumerate(self.all):
            replay.ring.move({name: array[i] for name, array in self._arrays.items()})
        self.columns = {name: torch.from_numpy(array).flatten(1, 2) for name, array in self._arrays.items()}
        self._final = self.columns["final"].numpy()
        self._members = np.arange(len(self.all))[:, None]

    @property
    def ready(self) -> bool:
        """Whether there is something to sample."""
        return self.all[0].ring.ready

    def append(self, rows: Steps, final: Array) -> Array:
        """Store rows `[1, S * E, ...]`, some of which are `final`; how many of each member's are transitions, `[S]`."""
        if self._uniform:
            first = self.all[0].ring
            row = first.written % first.rows
            if rows.lost is not None and first.written:
                self._arrays["done"][:, row - 1] |= rows.lost.reshape(-1, self._width)
            for name, array in self._arrays.items():
                column = final if name == "final" else getattr(rows, name)[0]
                array[:, row] = column.reshape(len(array), self._width, *column.shape[1:])
            for replay in self.all:
                replay.ring.written += 1
        else:
            for i, replay in enumerate(self.all):
                own = part(i, self._width)
                replay.append(Steps(*(None if column is None else column[:, own] for column in rows)))  # type: ignore[arg-type]
        transitions: Array = self._width - np.count_nonzero(final.reshape(-1, self._width), axis=1)
        return transitions

    def sample(self, batch_size: int, due: Array) -> tuple[Tensor, Tensor]:
        """Rows of each memory whose learner is `due` `[S]`, and the weights of their losses; both `[S, B]`."""
        if not self._uniform:
            index, weight = torch.zeros(len(due), batch_size, dtype=torch.int64), torch.zeros(len(due), batch_size)
            for i in np.flatnonzero(due):
                index[i], weight[i] = self.all[i].sample(batch_size)
            return index, weight
        many = enough(batch_size)
        nothing = np.zeros(many)
        places = np.stack([r.rng.random(many) if on else nothing for r, on in zip(self._uniform, due, strict=True)])
        drawn = self._uniform[0].candidates(places)  # all memories are in use alike
        final = self._final[self._members, drawn]
        rows = np.ascontiguousarray(drawn[:, :batch_size])
        for i in np.flatnonzero(due & final[:, :batch_size].any(axis=1)):
            rows[i] = self._uniform[i].filled(drawn[i], batch_size)
        return torch.from_numpy(rows), torch.ones(rows.shape)

    def reweigh(self, index: Tensor, error: Tensor, due: Array) -> None:
        """Tell the memories of those whose update was `due` how wrong their transitions were; both `[S, B]`."""
        if not self._uniform:
            for i in np.flatnonzero(due):
                self.all[i].reweigh(index[i], error[i])


class Learners:
    """The learners of all members, in one memory."""

    def __init__(self, members: Sequence[Parts], memories: "Memories") -> None:
        self.all = [m.learner for m in members if isinstance(m.learner, Learner)]
        kept = [memories.columns[name] for name in self.all[0].ring.storage.columns()]
        self._index, self._indices = torch.empty(0, dtype=torch.int64), list[Tensor]()
        self._stacked = Stacked([learner.descent for learner in self.all], kept)
        self._q = self._stacked.forward([learner.acting for learner in self.all])

    def q_values(self, obs: Tensor) -> Tensor:
        """Q of the members' observations `[S * E, ...]`, `[S * E, A]`."""
        return self._q(obs.view(len(self.all), -1, *obs.shape[1:])).flatten(0, 1)

    def update(self, due: Array, index: Tensor, weight: Tensor, errors: list[QlearnError | None]) -> Tensor:
        """A gradient step of each member that is `due` `[S]`; how wrong the transitions were, `[S, B]`.

        A member whose numbers are no longer finite gets its error into `errors`.
        """
        if self._index.shape != index.shape:
            self._index = torch.empty_like(index)  # its rows are those of the learners from now on
            self._indices = list(self._index)
        np.copyto(self._index.numpy(), index.numpy(), where=due[:, None])
        outcome, gradients = self._stacked.step(torch.from_numpy(due), weight, index)
        for i in np.flatnonzero(due).tolist():
            try:
                self.all[i].took(gradients[i], self._indices[i], outcome)
            except NotFiniteError as error:
                errors[i] = error
        return outcome
