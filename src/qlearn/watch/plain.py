"""Numbers as JSON takes them."""

import base64
import json
import math
from typing import Any

import numpy as np

from qlearn.types import Array

DIGITS = 6  # that are told of a number


def plain(value: Any) -> Any:
    """A value as JSON takes it: numbers to six digits, what is not finite as None, keys as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return rounded(value) if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def rounded(values: Array) -> Any:
    """An array of floats as `plain` has them, all at once."""
    values = values.astype(np.float64)
    known = np.isfinite(values)
    size = np.abs(np.where(known & (values != 0), values, 1.0))
    unit = 10.0 ** np.clip(DIGITS - 1 - np.floor(np.log10(size)), -300, 300)
    told = ((np.where(known, values, 0.0) * unit).round() / unit).astype(object)
    told[~known] = None
    return told.tolist()


def dumps(value: Any) -> bytes:
    """The JSON of a value, without characters that could end a script element or a line of it."""
    text = json.dumps(plain(value), separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def packed(shares: Array) -> str:
    """Numbers from 0 to 1 as bytes in base64."""
    return base64.b64encode((np.clip(shares, 0, 1) * 255).round().astype(np.uint8).tobytes()).decode()


def number(value: Any) -> float | None:
    """A number out of a file that may hold anything; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
