"""Atari games, as the papers play them: `ale-py`'s emulator and preprocessing in C++, every setting spelled out.

An observation is one frame, 84 x 84 bytes of grey, or the console's 128 bytes of RAM. Rewards are the game's own: they
are clipped where they are learned from (`replay.clip_rewards`), and frames are stacked there too (`env.frame_stack`).
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from qlearn.errors import QlearnError, UsageError, nearest
from qlearn.types import Array

SIZE = 84  # pixels of height and width
RAM = 128  # bytes
SCREEN = (210, 160)
FOR_TWO = {"combat", "joust", "maze_craze", "warlords"}  # games that nobody can play alone
OLD = re.compile(r"(?P<game>[A-Z]\w*?)(?P<ram>-ram)?(?P<kind>NoFrameskip|Deterministic)?-v(?P<version>[045])")

ObsType = Literal["pixels", "ram"]
ProtocolName = Literal["auto", "nature", "sticky", "v5"]


@dataclass(frozen=True)
class Rules:
    """How a game is played: a protocol.

    Nothing presses FIRE for the agent, in any of them.
    """

    repeat_action_probability: float
    """Of a sticky action: the console repeats the last one instead, frame by frame."""
    noop_max: int
    """No-ops at the start of an episode, at most; drawn anew, from none on."""
    life_loss: bool
    """In training, losing a life ends what is to be bootstrapped; the game goes on."""
    maxpool: bool
    """A frame is the maximum of the last two, for sprites that flicker."""
    epsilon: float
    """Of the policy that is evaluated."""
    full_action_space: bool = False
    """All 18 actions, not those alone that the game knows."""
    frameskip: int = 4
    """Frames that an action lasts; rewards are summed over them."""
    max_frames: int = 108_000
    """Frames after which an episode is truncated: half an hour."""

    @property
    def steps(self) -> int:
        """Of the agent until then, at least."""
        return (self.max_frames - self.noop_max) // self.frameskip


PROTOCOLS: Mapping[str, Rules] = {
    # Mnih et al. (2015), with the longer cap of all who came after it.
    "nature": Rules(repeat_action_probability=0.0, noop_max=30, life_loss=True, maxpool=True, epsilon=0.05),
    # Machado et al. (2018), with the minimal actions and the evaluation of Dopamine (Castro et al. 2018).
    "sticky": Rules(repeat_action_probability=0.25, noop_max=0, life_loss=False, maxpool=True, epsilon=0.001),
    # What gymnasium.make("ALE/Pong-v5") plays, whose frames are single ones.
    "v5": Rules(repeat_action_probability=0.25, noop_max=0, life_loss=False, maxpool=False, epsilon=0.001),
}


@dataclass(frozen=True)
class Game:
    """A game by its ROM's name, and the protocol that its id stands for."""

    rom: str
    protocol: str


def find_game(env_id: str) -> Game | None:
    """The game of an id of Atari's, `ALE/Pong-v5` or `PongNoFrameskip-v4`; None where it is none of these.

    Raises:
        UsageError: an id of the old ones, which skip frames at random or have an id of their own for RAM.
        QlearnError: ale-py is not installed.
    """
    name = env_id.removeprefix("ale_py:")
    modern = name.startswith("ALE/")
    found = OLD.fullmatch(name.removeprefix("ALE/"))
    if not modern and (found is None or found["version"] == "5"):
        return None
    try:
        games = known_games()
    except ImportError as error:
        if not modern and found and not (found["ram"] or found["kind"]):
            return None  # CartPole-v0 has the looks of an old game
        raise QlearnError(
            f"{env_id} needs a package that is not installed ({error}); the fix: pip install 'qlearn[atari]'"
        ) from error
    if modern:
        game = name.removeprefix("ALE/").removesuffix("-v5")
        if game not in games:
            choices = [f"ALE/{known}-v5" for known in games]
            raise UsageError(f"unknown environment {env_id}{nearest(env_id, choices)}")
        return Game(games[game], "v5")
    assert found is not None
    if found["game"] not in games:
        return None
    if found["kind"] == "NoFrameskip" and found["version"] == "4" and not found["ram"]:
        return Game(games[found["game"]], "nature")
    ram = " --env.obs-type ram" if found["ram"] else ""
    raise UsageError(f"{env_id} is an old id, whose frames are skipped otherwise; use ALE/{found['game']}-v5{ram}")


@cache
def known_games() -> Mapping[str, str]:
    """The games' names in ids, `MsPacman`, and those of their ROMs, `ms_pacman`."""
    from ale_py import roms

    alone = set(roms.get_all_rom_ids()) - FOR_TWO
    return {rom.title().replace("_", ""): rom for rom in sorted(alone)}


def rules_of(game: Game, protocol: str = "auto", changes: Mapping[str, Any] | None = None) -> Rules:
    """The rules of a protocol, that of the game's id by default, with changes.

    Raises:
        UsageError: there is no such rule, or it cannot be that.
    """
    rules = PROTOCOLS[game.protocol if protocol == "auto" else protocol]
    names = {field.name for field in dataclasses.fields(rules)}
    for name, value in (changes or {}).items():
        if name in ("obs_type", "protocol"):
            raise UsageError(f"env.kwargs has {name}; that is a field of its own: --env.{name.replace('_', '-')}")
        if name not in names:
            raise UsageError(f"env.kwargs has {name}, which is no setting of an Atari game{nearest(name, names)}")
        if why := not_so(name, value):
            raise UsageError(f"env.kwargs has {name} {value!r}; it must be {why}")
    return dataclasses.replace(rules, **(changes or {}))


def not_so(name: str, value: Any) -> str:
    """What a rule must be, where this value is not."""
    if name in ("life_loss", "maxpool", "full_action_space"):
        return "" if isinstance(value, bool) else "true or false"
    if name in ("repeat_action_probability", "epsilon"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if number and 0 <= value <= 1 else "a number from 0 to 1"
    least = 0 if name == "noop_max" else 1
    whole = isinstance(value, int) and not isinstance(value, bool)
    return "" if whole and least <= value <= 10**9 else f"a whole number, at least {least}"


def make_atari(
    game: Game,
    *,
    protocol: str = "auto",
    obs_type: ObsType = "pixels",
    render_mode: str | None = None,
    **changes: Any,
) -> "Atari":
    """One game; `changes` are to the protocol's rules."""
    if render_mode not in (None, "rgb_array"):
        raise UsageError("Atari games have no window of their own here; watch a film: --video FILE.mp4")
    rules = rules_of(game, protocol, changes)
    console = Pixels(game.rom, rules) if obs_type == "pixels" else Ram(game.rom, rules)
    camera = None
    if render_mode is not None:
        camera = Pixels(game.rom, rules, screen=True) if isinstance(console, Pixels) else console
    return Atari(console, camera, rules)


class Atari(gym.Env[Array, Any]):
    """A game. Its `info` tells `life_lost`, and `send` begins a step that `step` ends."""

    def __init__(self, console: "Pixels | Ram", camera: "Pixels | Ram | None", rules: Rules) -> None:
        self.console, self.camera, self.rules = console, camera, rules
        self.observation_space, self.action_space = console.observation_space, spaces.Discrete(len(console.actions))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // rules.frameskip}
        self.render_mode = "rgb_array" if camera else None
        self._twin = None if camera is console else camera  # plays along
        self._lives, self._sent = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """A new game. The same seed and actions give the same one, frame by frame."""
        super().reset(seed=seed, options=options)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed % 2**31
        obs, self._lives = self.console.reset(seed)
        if self._twin:
            self._twin.reset(seed)
        return obs, {"lives": self._lives, "life_lost": False}

    def send(self, action: int) -> None:
        """Begin a step: where the emulator has a thread of its own, it works while others are told."""
        self.console.send(int(action))
        if self._twin:
            self._twin.send(int(action))
        self._sent = True

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One action, for as many frames as it lasts."""
        if not self._sent:
            self.send(action)
        self._sent = False
        obs, reward, over, cut, lives = self.console.receive()
        if self._twin:
            self._twin.receive()
        lost, self._lives = lives < self._lives, lives
        return obs, reward, over, cut, {"lives": lives, "life_lost": lost and self.rules.life_loss}

    def render(self) -> Array:
        """The screen, `[210, 160, 3]`."""
        assert self.camera is not None
        return self.camera.screen()

    def get_action_meanings(self) -> list[str]:
        """What the actions are called."""
        return [str(action.name) for action in self.console.actions]


class Pixels:
    """The emulator with its preprocessing in C++, in a thread of its own; or, as a camera, with its screen."""

    def __init__(self, rom: str, rules: Rules, *, screen: bool = False) -> None:
        from ale_py.vector_env import AtariVectorEnv

        height, width = SCREEN if screen else (SIZE, SIZE)
        self._envs = AtariVectorEnv(
            rom,
            1,
            batch_size=0,
            num_threads=1,
            thread_affinity_offset=-1,
            max_num_frames_per_episode=rules.max_frames,
            repeat_action_probability=rules.repeat_action_probability,
            full_action_space=rules.full_action_space,
            continuous=False,
            autoreset_mode="NextStep",
            img_height=height,
            img_width=width,
            grayscale=not screen,
            stack_num=1,
            frameskip=rules.frameskip,
            maxpool=rules.maxpool,
            noop_max=rules.noop_max + 1,  # one more than it presses
            episodic_life=False,  # it would begin a new game
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self.actions = self._envs.ale.get_action_set()
        self.observation_space = spaces.Box(0, 255, (height, width) if not screen else (height, width, 3), np.uint8)
        self._obs = np.zeros(0, np.uint8)

    def reset(self, seed: int) -> tuple[Array, int]:
        """The first observation, and the lives."""
        obs, info = self._envs.reset(seed=np.array([seed]))
        self._obs = obs[0, 0]
        return self._obs, int(info["lives"][0])

    def send(self, action: int) -> None:
        """Begin a step."""
        self._envs.send(np.array([action]))

    def receive(self) -> tuple[Array, float, bool, bool, int]:
        """End it: observation, reward, whether the game is over, whether it was cut, lives."""
        obs, reward, over, cut, info = self._envs.recv()
        self._obs = obs[0, 0]
        return self._obs, float(reward[0]), bool(over[0]), bool(cut[0]), int(info["lives"][0])

    def screen(self) -> Array:
        """The last observation."""
        return self._obs


class Ram:
    """The emulator, whose memory is what is observed."""

    def __init__(self, rom: str, rules: Rules) -> None:
        from ale_py import ALEInterface, LoggerMode, roms

        ALEInterface.setLoggerMode(LoggerMode.Error)
        path = roms.get_rom_path(rom)
        assert path is not None
        self._ale, self._rom, self._rules = ALEInterface(), path, rules
        self._ale.setFloat("repeat_action_probability", rules.repeat_action_probability)
        self._ale.setInt("max_num_frames_per_episode", rules.max_frames)
        self._load(0)
        self.actions = self._ale.getLegalActionSet() if rules.full_action_space else self._ale.getMinimalActionSet()
        self.observation_space = spaces.Box(0, 255, (RAM,), np.uint8)
        self._action = 0

    def reset(self, seed: int) -> tuple[Array, int]:
        """The first observation, and the lives."""
        self._load(seed)
        noops = np.random.default_rng(seed).integers(self._rules.noop_max + 1)
        for _ in range(noops):
            self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
        return self._ale.getRAM(), self._ale.lives()

    def send(self, action: int) -> None:
        """Take note of the action."""
        self._action = action

    def receive(self) -> tuple[Array, float, bool, bool, int]:
        """A step: observation, reward, whether the game is over, whether it was cut, lives."""
        reward = 0.0
        for _ in range(self._rules.frameskip):
            reward += self._ale.act(self.actions[self._action])
            if self._ale.game_over():
                break
        over = self._ale.game_over(with_truncation=False)
        return self._ale.getRAM(), reward, over, self._ale.game_truncated(), self._ale.lives()

    def screen(self) -> Array:
        """The screen, `[210, 160, 3]`."""
        picture: Array = self._ale.getScreenRGB()
        return picture

    def _load(self, seed: int) -> None:
        """The console, switched on: only this takes a seed."""
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(self._rom)
