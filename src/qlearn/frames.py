"""Frames: as stacks that a network sees, and kept compressed.

LZ4 leaves some hundreds of the 7,056 bytes of a frame of Atari, and unpacks them in microseconds.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import QlearnError
from qlearn.types import Array

COMPRESSED = 3  # times smaller, at least, are the games of Atari


def joined(frames: Sequence[Tensor]) -> Tensor:
    """Observations `[B, *shape]` side by side, `[B, len(frames), *shape]`; images lie in memory channels last."""
    if frames[0].ndim != 3:
        return torch.stack(list(frames), 1)
    if frames[0].dtype == torch.uint8 and len(frames) == 4:
        return four_bytes(frames).movedim(-1, 1)
    return torch.stack(list(frames), -1).movedim(-1, 1)


def four_bytes(frames: Sequence[Tensor]) -> Tensor:
    """Four tensors of bytes `[...]` as one, `[..., 4]`, by way of integers of four bytes.

    So a compiled call makes whole rows at a time, where putting byte beside byte it would go one by one.
    """
    order = range(4) if sys.byteorder == "little" else range(3, -1, -1)
    together = torch.zeros((), dtype=torch.int32, device=frames[0].device)
    for frame, place in zip(frames, order, strict=True):
        together = together | (frame.to(torch.int32) << (8 * place))
    return together.view(torch.uint8).view(*together.shape, 4)


class Frames:
    """`rows` observations, each compressed by itself, and room where those that are asked for are unpacked.

    Args:
        rows: how many.
        shape: of one.
        dtype: of one.
        room: how many can be unpacked at a time.
    """

    def __init__(self, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any], room: int) -> None:
        try:
            import lz4.block
        except ImportError as error:
            raise QlearnError(
                f"replay.compress needs a package that is not installed ({error}); the fix: pip install 'qlearn[atari]'"
            ) from error
        self._pack, self._unpack = lz4.block.compress, lz4.block.decompress
        self._packed: list[bytes | None] = [None] * rows
        self._shape, self._dtype = shape, dtype
        self.size = int(np.prod(shape)) * dtype.itemsize
        self._room, self._places = np.zeros((room, *shape), dtype), np.zeros(rows, np.int32)
        self.unpacked = torch.from_numpy(self._room)  # [room, *shape]
        self.place = torch.from_numpy(self._places)  # [rows]: where an unpacked row is there

    def __setitem__(self, row: int, obs: Array) -> None:
        """Keep an observation."""
        self._packed[row] = self._pack(np.ascontiguousarray(obs, self._dtype).data, store_size=False)

    def __getitem__(self, row: int) -> Array:
        """The observation at a row; zeros where there is none yet."""
        packed = self._packed[row]
        if packed is None:
            return np.zeros(self._shape, self._dtype)
        return np.frombuffer(self._unpack(packed, uncompressed_size=self.size), self._dtype).reshape(self._shape)

    def unpack(self, rows: Array) -> None:
        """Unpack the observations at `rows`, and note their places."""
        rows = np.unique(rows)
        if len(rows) > len(self._room):
            raise ValueError(f"{len(rows)} observations are to be unpacked, and there is room for {len(self._room)}")
        for place, row in enumerate(rows.tolist()):
            self._room[place] = self[row]
        self._places[rows] = np.arange(len(rows))

    @property
    def nbytes(self) -> int:
        """What the packed observations take."""
        return sum(len(packed) for packed in self._packed if packed is not None)

    def packed(self, rows: Array) -> dict[str, Array]:
        """What a checkpoint keeps of `rows`: their bytes, one after another, and how many each has."""
        packed = [self._packed[row] or b"" for row in rows.tolist()]
        sizes = np.array([len(data) for data in packed], np.int32)
        return {"packed": np.frombuffer(bytearray().join(packed), np.uint8), "sizes": sizes}

    def put(self, rows: Array, packed: Array, sizes: Array) -> None:
        """Take back what `packed` gave.

        Raises:
            ValueError: it is not that of so many observations.
        """
        ends = np.cumsum(sizes, dtype=np.int64)
        if packed.dtype != np.uint8 or packed.ndim != 1 or (sizes < 0).any() or len(sizes) != len(rows):
            raise ValueError(f"packed observations {packed.shape} {packed.dtype} of {len(sizes)} rows")
        if len(sizes) and ends[-1] != len(packed):
            raise ValueError(f"packed observations of {len(packed)} bytes, where {ends[-1]} are counted")
        data = packed.tobytes()
        for row, end, size in zip(rows.tolist(), ends.tolist(), sizes.tolist(), strict=True):
            self._packed[row] = data[end - size : end] if size else None
            try:
                self[row]
            except Exception as error:
                raise ValueError(f"the packed observation of row {row} is damaged: {error}") from error
