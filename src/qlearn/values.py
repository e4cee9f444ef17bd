"""What the network's numbers mean: a value, or a distribution over returns. Pure and frozen.

A representation answers a few questions, and no algorithm needs to know more of it. K is the count of its numbers.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qlearn.types import Dist


class Value(Protocol):
    """A representation of the return: what K numbers per action say of it."""

    def mean(self, dist: Dist) -> Tensor:
        """Expected return Q, `[..., A]`."""

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """The return of policy `pi` `[..., A]`: `[..., K]`."""

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The return `reward + discount * Z`, where `mix` gave z: the target y, `[..., K]`."""

    def expected(self, y: Tensor) -> Tensor:
        """The mean of a target, `[...]`."""

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:
        """The distance of the prediction z `[..., K]` (and tau, see `Dist`) from the target y per sample, `[...]`."""

    def error(self, loss: Tensor) -> Tensor:
        """How wrong a sample of this loss was, `[...]`: its priority in a replay memory, before any exponent."""

    @property
    def exponent(self) -> float:
        """The published exponent of such priorities."""

    def diagnose(self, z: Tensor, reward: Tensor, discount: Tensor) -> dict[str, float]:
        """What is to be known of such backups, by name."""


@dataclass(frozen=True)
class Scalar:
    """The return as one number, its expectation (Mnih et al. 2015). K = 1.

    `huber=False` is (y - q)^2. `huber=True` is the Huber loss with threshold 1: its gradient is the error clipped
    to [-1, 1], which is what the Nature paper's "error clipping" does.
    """

    huber: bool = False

    def mean(self, dist: Dist) -> Tensor:
        """`[..., A, 1]` to `[..., A]`."""
        return dist.z.squeeze(-1)

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """sum_a pi(a) q(a), `[..., 1]`."""
        return (pi[..., None] * dist.z).sum(-2)

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """`reward + discount * q`, `[..., 1]`."""
        return reward[..., None] + discount[..., None] * z

    def expected(self, y: Tensor) -> Tensor:
        """`[..., 1]` to `[...]`."""
        return y.squeeze(-1)

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:  # noqa: ARG002 (a number has no quantiles)
        """Per sample, `[...]`."""
        error = (y - z).squeeze(-1)
        return huber(error, 1.0) if self.huber else error.square()

    def error(self, loss: Tensor) -> Tensor:
        """|y - q| (Schaul et al. 2016), read back from the loss."""
        if not self.huber:
            return loss.sqrt()
        return torch.where(loss <= 0.5, (2 * loss).sqrt(), loss + 0.5)

    @property
    def exponent(self) -> float:
        """Of proportional prioritisation (Schaul et al. 2016)."""
        return 0.6

    def diagnose(self, z: Tensor, reward: Tensor, discount: Tensor) -> dict[str, float]:  # noqa: ARG002
        """Nothing: any return can be told."""
        return {}


@dataclass(frozen=True)
class Categorical:
    """The return as probabilities of fixed atoms: C51 (Bellemare et al. 2017). K = atoms; the network gives logits.

    The atoms lie evenly from v_min to v_max. Returns beyond are counted at the ends, so the support must cover them.
    """

    v_min: float = -10.0
    v_max: float = 10.0
    atoms: int = 51

    def support(self, like: Tensor) -> Tensor:
        """The atoms, `[K]`."""
        return torch.linspace(self.v_min, self.v_max, self.atoms, dtype=like.dtype, device=like.device)

    def mean(self, dist: Dist) -> Tensor:
        """sum_i p_i z_i, `[..., A]`."""
        return self.expected(dist.z.softmax(-1))

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """The mixture of the actions' distributions: probabilities, `[..., K]`."""
        return (pi[..., None] * dist.z.softmax(-1)).sum(-2)

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The probabilities z of atoms moved to `reward + discount * atom`, projected onto the atoms, `[..., K]`.

        Each moved atom's probability is shared by its two neighbours in proportion to their nearness. Mass is kept,
        and so is the mean while every moved atom is inside the support.
        """
        place = self._place(z, reward, discount)
        # The last atom is all on the upper side of the one before it. NaN stays in the probabilities.
        low = place.nan_to_num().floor().clamp(0, self.atoms - 2)
        upper = (place - low).clamp(0, 1)  # beyond the support, all on its end
        shared = torch.zeros_like(z).scatter_add(-1, low.long(), z * (1 - upper))
        return shared.scatter_add(-1, low.long() + 1, z * upper)

    def expected(self, y: Tensor) -> Tensor:
        """The mean of probabilities, `[...]`."""
        return y @ self.support(y)

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:  # noqa: ARG002 (its levels are its atoms)
        """The cross-entropy of the predicted distribution under the target's, `[...]`."""
        return -(y * z.log_softmax(-1)).sum(-1)

    def error(self, loss: Tensor) -> Tensor:
        """The loss itself, as in Rainbow (Hessel et al. 2018)."""
        return loss

    @property
    def exponent(self) -> float:
        """Rainbow's."""
        return 0.5

    def diagnose(self, z: Tensor, reward: Tensor, discount: Tensor) -> dict[str, float]:
        """`outside_support`: the part of the probability that belongs beyond the atoms, and is put at their ends."""
        place = self._place(z, reward, discount)
        outside = (place < -1e-3) | (place > self.atoms - 1 + 1e-3)
        return {"outside_support": (z * outside).sum(-1).mean().item()}

    def _place(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """Where each atom is moved to, in atoms from the lowest, `[..., K]`."""
        moved = reward[..., None] + discount[..., None] * self.support(z)
        return (moved - self.v_min) * ((self.atoms - 1) / (self.v_max - self.v_min))


@dataclass(frozen=True)
class Quantiles:
    """The return as K of its quantiles: QR-DQN (Dabney et al. 2018a), and IQN (2018b) where the network gives tau.

    `kappa` is the threshold of the Huber loss; with 0 the loss is absolute (QR-DQN-0).
    """

    kappa: float = 1.0

    def mean(self, dist: Dist) -> Tensor:
        """The mean of the quantiles, `[..., A]`."""
        return dist.z.mean(-1)

    def mix(self, dist: Dist, pi: Tensor) -> Tensor:
        """The mean of the actions' quantile functions, `[..., K]`: of one action its quantiles, as M-IQN has it.

        Of several actions this is not the quantile function of their mixture, though its mean is right.
        """
        return (pi[..., None] * dist.z).sum(-2)

    def backup(self, z: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """`reward + discount * z`, `[..., K]`."""
        return reward[..., None] + discount[..., None] * z

    def expected(self, y: Tensor) -> Tensor:
        """The mean of quantiles, `[...]`."""
        return y.mean(-1)

    def loss(self, z: Tensor, tau: Tensor | None, y: Tensor) -> Tensor:
        """Quantile regression, `[...]`: summed over predicted quantiles, averaged over the target's.

        Without `tau` the K predictions stand for the middles of K equal parts, (2i - 1) / 2K.
        """
        count = z.shape[-1]
        if tau is None:
            tau = (torch.arange(count, dtype=z.dtype, device=z.device) + 0.5) / count
        error = y[..., None, :] - z[..., :, None]  # [..., predicted, target]
        size = huber(error, self.kappa) / self.kappa if self.kappa else error.abs()
        weight = (tau[..., :, None] - (error.detach() < 0).to(z)).abs()
        return (weight * size).mean(-1).sum(-1)

    def error(self, loss: Tensor) -> Tensor:
        """The loss itself."""
        return loss

    @property
    def exponent(self) -> float:
        """Dopamine's: there the root of the loss is the priority."""
        return 0.5

    def diagnose(self, z: Tensor, reward: Tensor, discount: Tensor) -> dict[str, float]:  # noqa: ARG002
        """Nothing: any return can be told."""
        return {}


def huber(error: Tensor, kappa: float) -> Tensor:
    """error^2 / 2 up to the threshold, then a line: `[...]` to `[...]`."""
    size = error.abs()
    return torch.where(size <= kappa, 0.5 * error.square(), kappa * (size - 0.5 * kappa))
