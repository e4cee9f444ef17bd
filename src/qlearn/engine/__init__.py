"""How an update runs: gradient steps over flat parameters, eagerly or as one compiled call."""

from qlearn.engine.descent import Descent, Gradient, Tensors, load_module_tensors, module_tensors
from qlearn.engine.optimizers import Adam, CenteredRMSProp, Optimizer, RAdam
from qlearn.engine.precision import why_not_bfloat16
from qlearn.engine.program import Mode, Program
from qlearn.engine.pure import Flat, Forward
from qlearn.engine.stacked import Stacked

__all__ = [
    "Adam",
    "CenteredRMSProp",
    "Descent",
    "Flat",
    "Forward",
    "Gradient",
    "Mode",
    "Optimizer",
    "Program",
    "RAdam",
    "Stacked",
    "Tensors",
    "load_module_tensors",
    "module_tensors",
    "why_not_bfloat16",
]
