"""Watching an agent: episodes in a window, or as a video with the Q-values beside the frame."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from qlearn.actor import Actor
from qlearn.agent import Agent
from qlearn.envs import GymEnvs
from qlearn.errors import EnvError, QlearnError, RunError, UsageError
from qlearn.evaluate import MAX_EPISODE_STEPS
from qlearn.types import Array

PANEL = 300  # pixels of width for the Q-values
INK, PAPER, BAR, BEST = (34, 39, 46), (250, 250, 248), (176, 190, 205), (31, 95, 168)


@dataclass(frozen=True)
class Moment:
    """One step as it is watched: what the agent sees its actions to be worth, and what it then does."""

    q: Array  # [A]
    action: int
    step: int  # of the episode, from 0
    episode: int  # from 1
    so_far: float  # return before this step


def require_screen(video: Path | None) -> None:
    """Refuse a window where there is no screen, and a video that is no .mp4 file.

    Raises:
        UsageError: with the fix.
    """
    if video is not None and video.suffix.lower() != ".mp4":
        raise UsageError(f"{video}: the video must be an .mp4 file")
    if os.name == "posix" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))):
        if video is None:
            raise UsageError("there is no screen here to open a window on; use --video FILE.mp4")
        os.environ["SDL_VIDEODRIVER"] = "dummy"  # frames need no screen; SDL complains of its absence otherwise


def show(agent: Agent, envs: GymEnvs, episodes: int, video: Path | None = None, *, epsilon: float = 0.0) -> list[float]:
    """Play episodes in the environment's own window, or into an H.264 video; returns their returns.

    Frames are streamed to ffmpeg one at a time, and the video gets its name when it is complete. With `epsilon` an
    action is random that often.

    Raises:
        UsageError: the environment draws no frames. QlearnError: a package or ffmpeg is missing.
        RunError: the file cannot be written.
    """
    names, seen, q = action_names(envs), (0.0, 0.0), np.zeros(0)

    def q_values(obs: Tensor) -> Tensor:
        nonlocal q
        values = agent.encoded_q_values(obs)
        q = values[0].numpy()
        return values

    film = _Video(video, int(envs.envs[0].metadata.get("render_fps") or 30)) if video else None
    returns: list[float] = []
    try:
        actor = Actor(envs, q_values, np.random.default_rng(0), stack=agent.stack, limit=MAX_EPISODE_STEPS)
        while len(returns) < episodes:
            frame = _frame(envs) if film else None
            step, so_far, episode = int(actor.lengths[0]), float(actor.returns[0]), len(returns) + 1
            rows, ended = actor.rollout(epsilon)
            returns += [e.episode_return for e in ended]
            if film and frame is not None:
                seen = min(seen[0], float(q.min())), max(seen[1], float(q.max()))
                film.add(compose(frame, Moment(q, int(rows.action[0, 0]), step, episode, so_far), names, seen))
        if film:
            film.finish()
    except BaseException:
        if film:
            film.abandon()
        raise
    return returns


def _frame(envs: GymEnvs) -> Array:
    try:
        frame: Any = envs.envs[0].render()
    except Exception as error:
        missing = isinstance(error, ImportError) or "not installed" in str(error)
        fix = "; the fix: pip install 'qlearn[classic,toy,box2d]'" if missing else ""
        raise (QlearnError if missing else EnvError)(f"{envs.env_id} cannot be drawn: {error}{fix}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise UsageError(f"{envs.env_id} draws no frames (its render mode rgb_array gave {type(frame).__name__})")
    return frame


def action_names(envs: GymEnvs) -> list[str]:
    """The environment's words for its actions, where it has them."""
    count = envs.space.num_actions
    meanings = getattr(envs.envs[0].unwrapped, "get_action_meanings", None)
    names = [str(name).lower() for name in meanings()] if callable(meanings) else []
    return names if len(names) == count else [f"action {n + envs.encoder.first_action}" for n in range(count)]


def compose(frame: Array, moment: Moment, names: list[str], scale: tuple[float, float]) -> Array:
    """The frame `[H, W, 3]` with the Q-values as bars at its right; heights and widths come out even.

    `scale` is what the bars span: it includes 0, from which they start, and every value shown so far.
    """
    height = max(frame.shape[0], 64 + 44 * min(len(names), 10))
    picture = Image.new("RGB", ((frame.shape[1] + PANEL + 1) // 2 * 2, (height + 1) // 2 * 2), PAPER)
    picture.paste(Image.fromarray(np.asarray(frame, np.uint8)), (0, (height - frame.shape[0]) // 2))
    draw, left = ImageDraw.Draw(picture), frame.shape[1] + 16
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    draw.text((left, 12), f"episode {moment.episode}   step {moment.step}   return {moment.so_far:g}", INK, small)
    draw.text(
        (left, 34), "Q-values (the return that each action promises)", (120, 126, 134), ImageFont.load_default(11)
    )
    low, high = scale if scale[0] < scale[1] else (0.0, 1.0)
    shown = np.argsort(-moment.q)[:10] if len(names) > 10 else np.arange(len(names))
    top, row, room = 60, min(44, (height - 68) // max(1, len(shown))), PANEL - 32
    for place, index in enumerate(shown):
        y, chosen = top + place * row, index == moment.action
        ends = sorted((float(value) - low) / (high - low) * room for value in (0.0, moment.q[index]))
        draw.text((left, y), names[index], BEST if chosen else INK, font if row >= 40 else small)
        gap = "" if chosen else f" ({moment.q[index] - moment.q.max():+.2f})"
        value = f"{moment.q[index]:.2f}{gap}"
        draw.text((left + room - draw.textlength(value, small), y), value, BEST if chosen else INK, small)
        box = (left + int(ends[0]), y + 21, left + max(int(ends[1]), int(ends[0]) + 1), y + max(24, row - 10))
        draw.rectangle(box, BEST if chosen else BAR)
    return np.asarray(picture)


class _Video:
    """Frames streamed to ffmpeg; the file gets its name when it is complete."""

    def __init__(self, out: Path, fps: int) -> None:
        self.out, self.fps = out, fps
        self._part = out.with_name(f".{out.stem}.{os.getpid()}.part.mp4")
        self._process: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._ffmpeg = _find_ffmpeg()
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {out}: {error.strerror}") from error
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the video)

    def add(self, frame: Array) -> None:
        if self._process is None:
            self._shape = frame.shape
            size = f"{frame.shape[1]}x{frame.shape[0]}"
            source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(self.fps), "-i", "-"]
            target = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(self._part)]
            self._process = subprocess.Popen(
                [self._ffmpeg, "-y", "-loglevel", "error", *source, *target],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
            )
        if frame.shape != self._shape:
            raise EnvError(f"the frames change their size from {self._shape} to {frame.shape}; a video cannot")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.tobytes())
        except OSError:
            self._fail()

    def finish(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            self._fail()
        if self._process.wait():
            self._fail()
        self._errors.close()
        try:
            os.replace(self._part, self.out)
        except OSError as error:
            self.abandon()
            raise RunError(f"cannot write {self.out}: {error.strerror}") from error

    def abandon(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None and not self._process.stdin.closed:
                with suppress(OSError):
                    self._process.stdin.close()
        self._errors.close()
        self._part.unlink(missing_ok=True)

    def _fail(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        raise RunError(f"cannot write {self.out}: ffmpeg says: {lines[0] if lines else 'nothing'}")


def _find_ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise QlearnError("a video needs ffmpeg, which is not here; the fix: pip install 'qlearn[video]'") from error
    return path
