"""Whether this processor computes in bfloat16, right and fast: half of float32's bits, all of its range."""

from functools import cache

import torch
from torch.nn import functional as F

# Channels, filters, size and stride: those of our torsos, and the one that was wrong once.
SIZES = (
    (1, 1, 2, 1),
    (4, 32, 8, 4),
    (32, 64, 4, 2),
    (64, 64, 3, 1),
    (4, 16, 8, 4),
    (16, 32, 4, 2),
    (4, 32, 5, 5),
    (32, 64, 5, 5),
)


@cache
def why_not_bfloat16() -> str | None:
    """Why not; None where it does. What decides is the processor and its results, never a clock.

    A processor without instructions for it computes it many times slower than float32 (PyTorch issue 146508), and
    some of PyTorch's convolutions in it were wrong (issue 163347).
    """
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "the processor has no instructions for bfloat16, which makes it slower than float32"
    generator = torch.Generator().manual_seed(0)
    for channels, filters, size, stride in SIZES:
        x = torch.rand(2, channels, 20, 20, generator=generator).to(memory_format=torch.channels_last)
        weight = torch.rand(filters, channels, size, size, generator=generator) - 0.4
        if not _alike(x, weight, stride):
            return f"PyTorch's convolution of {size} x {size} in bfloat16 is wrong on this processor"
    return None


def _alike(x: torch.Tensor, weight: torch.Tensor, stride: int) -> bool:
    """Whether a convolution and its gradient are the same in both, to bfloat16's 8 bits."""
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        one, other = (tensor.to(dtype).requires_grad_() for tensor in (x, weight))
        y = F.conv2d(one, other, stride=stride)
        results.append([y, *torch.autograd.grad(y.float().square().mean(), [one, other])])
    return all((a - b).norm() <= 0.02 * a.norm() for a, b in zip(*results, strict=True))
