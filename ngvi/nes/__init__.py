"""Natural evolution strategies: black-box optimisation by ranks.

`minimize` searches; `Optimizer` is asked for points and told their values; `run` is a
whole search as one pure function, for `jit` and `vmap`.

From the inside out:

| module           | what                                                              |
|------------------|-------------------------------------------------------------------|
| `updates`        | how a generation's draws and ranks move the distribution          |
| `strategies`     | their weights and rates: CMA-ES, xNES, …                          |
| `search`         | init, ask, tell: a generation, and nothing else                   |
| `generation`     | the same with bounds, the best point and the tests that stop it   |
| `run`, `attempt` | generations until a test says stop: compiled, or called one by one|
| `campaign`       | runs, one after another                                           |
| `drive`          | the same with checkpoints, callbacks and the line of progress     |
"""

from ngvi.checkpoints import CheckpointError
from ngvi.executors import PoolExecutor
from ngvi.nes.bounds import Box, make_box
from ngvi.nes.generation import Run
from ngvi.nes.importance_mixing import Mixture, Population, mix
from ngvi.nes.minimize import minimize
from ngvi.nes.optimizer import Optimizer
from ngvi.nes.plot import plot
from ngvi.nes.run import run
from ngvi.nes.scipy_method import scipy_method
from ngvi.nes.search import State, ask, init, tell
from ngvi.nes.stopping import Stopping
from ngvi.nes.strategies import (
    Strategy,
    cma,
    cr_fm_nes,
    isotropic_nes,
    openes,
    pgpe,
    snes,
    spiked_cma,
    xnes,
)

__all__ = [
    "Box",
    "CheckpointError",
    "Mixture",
    "Optimizer",
    "PoolExecutor",
    "Population",
    "Run",
    "State",
    "Stopping",
    "Strategy",
    "ask",
    "cma",
    "cr_fm_nes",
    "init",
    "isotropic_nes",
    "make_box",
    "minimize",
    "mix",
    "openes",
    "pgpe",
    "plot",
    "run",
    "scipy_method",
    "snes",
    "spiked_cma",
    "tell",
    "xnes",
]
