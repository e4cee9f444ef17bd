"""The configuration of a run: frozen records of plain values. `qlearn.build` alone turns it into parts.

A field's docstring is its help on the command line, and its annotation says what it may be.
"""

from qlearn.config.records import Config, Range, RuntimeConfig
from qlearn.config.rules import check, flatten, override, to_dict

__all__ = ["Config", "Range", "RuntimeConfig", "check", "flatten", "override", "to_dict"]
