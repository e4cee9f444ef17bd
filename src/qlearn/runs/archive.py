"""The replay memory on the disk: segments of rows, each written once, that one checkpoint after another refers to.

So a checkpoint costs what is new since the last one, not the whole memory. The last row is never in a segment, for what
it says may still change.
"""

import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load, save

from qlearn.replay import Ring
from qlearn.runs.files import reading, sync_directory, write_bytes
from qlearn.runs.manifest import File, Manifest, Segment
from qlearn.types import Array

FOLDER = "replay"  # among the checkpoints
SIZE = 2**25  # bytes of a segment, about


def store(ring: Ring, checkpoints: Path, before: Manifest | None) -> tuple[tuple[Segment, ...], range]:
    """Write the segments that are not there yet.

    Args:
        ring: whose rows they are.
        checkpoints: the directory of the run's checkpoints.
        before: the manifest of the last one.

    Returns:
        The segments, and the rows after them, which are for the checkpoint itself.
    """
    folder, there = checkpoints / FOLDER, {segment.end: segment for segment in before.segments} if before else {}
    length, known = max(1, SIZE // ring.row_bytes), ring.known
    segments: list[Segment] = []
    first = known.start
    while (end := (first // length + 1) * length) < known.stop:
        old = there.get(end)
        segments.append(old if old and old.first <= first else _written(ring, folder, range(first, end)))
        first = end
    if segments:
        sync_directory(folder)
    return tuple(segments), range(first, known.stop)


def _written(ring: Ring, folder: Path, rows: range) -> Segment:
    """A new segment."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: torch.from_numpy(array) for name, array in ring.rows_of(rows).items()})
    file = File.of("", data)
    file = file._replace(name=f"rows-{rows.start}-{rows.stop}-{file.sha256[:16]}.safetensors")
    temporary = folder / f".{file.name}.{os.getpid()}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        write_bytes(temporary, data)
        os.replace(temporary, folder / file.name)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return Segment(rows.start, rows.stop, file)


def fetch(ring: Ring, checkpoints: Path, segments: tuple[Segment, ...], rest: range, arrays: dict[str, Array]) -> None:
    """Fill a ring with what `store` wrote, and with the rows after that.

    Raises:
        RunError: a segment is damaged, or they are not what the ring would know.
    """
    folder, next_row = checkpoints / FOLDER, max(0, rest.stop - ring.rows)
    for segment in segments:
        data = segment.file.read(folder)
        with reading(folder / segment.file.name):
            if not segment.first <= next_row < segment.end <= rest.stop:
                raise ValueError(f"rows {segment.first} to {segment.end}, where {next_row} is next")
            columns = {name: tensor.numpy() for name, tensor in load(data).items()}
            ring.put_rows(range(next_row, segment.end), _cut(columns, ring, next_row - segment.first, segment))
            next_row = segment.end
    if next_row != rest.start:
        raise ValueError(f"rows up to {next_row}, and then those from {rest.start}")
    ring.put_rows(rest, arrays)


def _cut(columns: dict[str, Array], ring: Ring, gone: int, segment: Segment) -> dict[str, Array]:
    """Without the first rows, which the ring no longer knows."""
    if any(len(columns[name]) != segment.end - segment.first for name in ring.columns):
        raise ValueError(f"columns that are not of {segment.end - segment.first} rows")
    cut = {name: columns[name][gone:] for name in ring.columns}
    if ring.frames is not None:
        sizes, lanes = columns["sizes"], gone * ring.num_envs
        cut |= {"packed": columns["packed"][int(sizes[:lanes].sum()) :], "sizes": sizes[lanes:]}
    return cut


def sweep(checkpoints: Path, referring: list[Path]) -> None:
    """Remove the segments that none of these checkpoints refers to."""
    folder = checkpoints / FOLDER
    if not folder.is_dir() or folder.is_symlink():
        return
    needed = {segment.file.name for path in referring for segment in Manifest.read(path).segments}
    for path in folder.iterdir():
        if path.name not in needed and (path.name.startswith("rows-") or path.name.endswith(".tmp")):
            with suppress(OSError):
                path.unlink()
