"""Human-normalised scores of Atari games: (score - random) / (human - random), so that 1 is a human's.

`modern` has the constants of van Hasselt et al. (2016) and all who came after, with 0 for the random score of Video
Pinball: with those the published means come out, with the 16,256.9 that some tables have they do not. `nature` has the
humans of Mnih et al. (2015), on their 49 games. The figures are in atari57.csv beside this file.
"""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

Reference = Literal["modern", "modern-16256.9", "nature"]
COLUMNS = {
    "modern": ("random_vp0", "human"),
    "modern-16256.9": ("random", "human"),
    "nature": ("random_nature", "human_nature"),
}

# Subsets whose scores tell most of those of all games: Aitchison et al. (2022).
ATARI5 = ("battle_zone", "double_dunk", "name_this_game", "phoenix", "qbert")
ATARI10 = (*ATARI5, "amidar", "bowling", "frostbite", "kung_fu_master", "riverraid")


@cache
def references(reference: Reference = "modern") -> Mapping[str, tuple[float, float]]:
    """The random and the human score of each game, by its ROM's name."""
    low, high = COLUMNS[reference]
    with (files("qlearn") / "atari57.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["game"]: (float(row[low]), float(row[high])) for row in rows if row[low] and row[high]}


def human_normalized(game: str, score: float, reference: Reference = "modern") -> float | None:
    """The score on the scale where 0 is a random player's and 1 a human's; None for a game without a reference."""
    if game not in references(reference):
        return None
    low, high = references(reference)[game]
    return (score - low) / (high - low)


def games(name: str) -> tuple[str, ...]:
    """The ROMs of `atari5`, `atari10`, `atari57`; nothing for other names."""
    return {"atari5": ATARI5, "atari10": ATARI10, "atari57": tuple(references())}.get(name, ())
