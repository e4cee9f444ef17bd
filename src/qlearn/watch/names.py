"""What people call the actions and the numbers of environments that have no names for them."""

from qlearn.envs import GymEnvs
from qlearn.play import action_names

ACTIONS = {
    "CartPole": ("push left", "push right"),
    "MountainCar": ("push left", "coast", "push right"),
    "Acrobot": ("torque −1", "no torque", "torque +1"),
    "LunarLander": ("nothing", "left engine", "main engine", "right engine"),
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop off"),
    "Blackjack": ("stick", "hit"),
}
NUMBERS = {
    "CartPole": ("cart position", "cart velocity", "pole angle", "pole velocity"),
    "MountainCar": ("position", "velocity"),
    "Acrobot": ("cos θ₁", "sin θ₁", "cos θ₂", "sin θ₂", "velocity of θ₁", "velocity of θ₂"),
    "LunarLander": (
        "position x",
        "position y",
        "velocity x",
        "velocity y",
        "angle",
        "angular velocity",
        "left leg down",
        "right leg down",
    ),
}


def family(env_id: str) -> str:
    """`CartPole` of `module:CartPole-v1`."""
    return env_id.rpartition(":")[2].rpartition("-v")[0]


def actions_of(envs: GymEnvs, env_id: str) -> list[str]:
    """A word for each action: the environment's own, ours, or its number."""
    names, known = action_names(envs), ACTIONS.get(family(env_id), ())
    return list(known) if len(known) == len(names) and names[0].startswith("action ") else names


def numbers_of(env_id: str, count: int) -> list[str]:
    """A word for each number of an observation."""
    known = NUMBERS.get(family(env_id), ())
    return list(known) if len(known) == count else [f"number {n}" for n in range(count)]
