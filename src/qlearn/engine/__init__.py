"""How an update runs: gradient steps over flat parameters, eagerly or as one compiled call."""

from qlearn.engine.descent import Descent, Flat, Gradient, Tensors, load_module_tensors, module_tensors
from qlearn.engine.optimizers import Adam, CenteredRMSProp, Optimizer, RAdam
from qlearn.engine.program import Mode, Program

__all__ = [
    "Adam",
    "CenteredRMSProp",
    "Descent",
    "Flat",
    "Gradient",
    "Mode",
    "Optimizer",
    "Program",
    "RAdam",
    "Tensors",
    "load_module_tensors",
    "module_tensors",
]
