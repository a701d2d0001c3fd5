"""Gaussian search strategies, as numbers: weights by rank, rates, and an update.

| strategy      | structure | mean  | shape and scale        | retraction  | update    |
|---------------|-----------|-------|------------------------|-------------|-----------|
| xNES          | dense     | η = 1 | (9 + 3 log D)/(5 D√D)  | exponential | natural   |
| SNES          | diagonal  | η = 1 | (3 + log D)/(5√D)      | exponential | natural   |
| isotropic NES | isotropic | η = 1 | (3 + log D)/(5√D)      | exponential | natural   |
| xNES-as       | dense     | η = 1 | of the scale: by tests | exponential | sampling  |
| SNES-as       | diagonal  | η = 1 | by tests               | exponential | sampling  |
| CMA-ES        | dense     | c = 1 | c_μ and c₁, path for σ | covariance  | paths     |
| sep-CMA-ES    | diagonal  | c = 1 | (D + 2)/3 times as fast| covariance  | paths     |
| spiked CMA-ES | spiked    | c = 1 | faster by D/(3(k + 1)) | projection  | paths     |
| LRA-CMA-ES    | dense     | by its signal, as the shape    | covariance  | paths     |
| CR-FM-NES     | spiked    | η = 1 | η_B, c₁, η_σ by a path | deviations  | moving    |
| PGPE          | diagonal  | η     | η                      | deviations  | momentum  |
| OpenES        | fixed     | η     | none                   | –           | momentum  |

All of them step along the same tangent vector, γ = −Σ uᵢεᵢ and M = −Σ vᵢ(εᵢεᵢᵀ − I):
the natural gradient of the expected utility.

Source: Wierstra et al. (2014), Natural evolution strategies; the others with each.
"""

from ngvi.nes.strategies.covariance_matrix import cma, spiked_cma
from ngvi.nes.strategies.fast_moving import cr_fm_nes
from ngvi.nes.strategies.gradient import openes, pgpe
from ngvi.nes.strategies.natural import isotropic_nes, snes, xnes
from ngvi.nes.strategies.popsize import checked_popsize
from ngvi.nes.strategy import Strategy

__all__ = [
    "Strategy",
    "checked_popsize",
    "cma",
    "cr_fm_nes",
    "isotropic_nes",
    "openes",
    "pgpe",
    "snes",
    "spiked_cma",
    "xnes",
]
