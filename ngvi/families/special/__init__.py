"""Special functions of the exponential families, accurate in float32 and float64.

Elementwise on arrays of any shape, differentiable to any order in use, NaN for NaN and
outside the domain. Each module's docstring says what its functions are.
"""

from ngvi.families.special.bessel import (
    bessel_ratio,
    bessel_ratio_slope,
    inverse_bessel_ratio,
    log_bessel,
    log_bessel_scaled,
    one_minus_bessel_ratio,
)
from ngvi.families.special.differences import (
    bregman_log_gamma,
    bregman_log_gamma_excess,
    digamma_difference,
    trigamma_difference,
)
from ngvi.families.special.dirichlet import (
    dirichlet_fisher_remainder,
    inverse_dirichlet,
)
from ngvi.families.special.gamma import (
    digamma,
    log_gamma,
    log_minus_digamma,
    stirling_remainder,
    tetragamma,
    trigamma,
    trigamma_excess,
)
from ngvi.families.special.inverses import (
    inverse_digamma,
    inverse_log_minus_digamma,
)
from ngvi.families.special.multivariate import (
    inverse_wishart_gap,
    multivariate_digamma,
    multivariate_log_gamma,
    wishart_gap,
)
from ngvi.families.special.ratios import (
    expm1_minus,
    log1p_minus,
    log_ratio,
    log_ratio_gap,
    poisson_divergence,
)
from ngvi.families.special.tails import (
    mills_ratio,
    scaled_exp1,
)
from ngvi.families.special.von_mises import von_mises_cdf

__all__ = [
    "bessel_ratio",
    "bessel_ratio_slope",
    "bregman_log_gamma",
    "bregman_log_gamma_excess",
    "digamma",
    "digamma_difference",
    "dirichlet_fisher_remainder",
    "expm1_minus",
    "inverse_bessel_ratio",
    "inverse_digamma",
    "inverse_dirichlet",
    "inverse_log_minus_digamma",
    "inverse_wishart_gap",
    "log1p_minus",
    "log_bessel",
    "log_bessel_scaled",
    "log_gamma",
    "log_minus_digamma",
    "log_ratio",
    "log_ratio_gap",
    "mills_ratio",
    "multivariate_digamma",
    "multivariate_log_gamma",
    "one_minus_bessel_ratio",
    "poisson_divergence",
    "scaled_exp1",
    "stirling_remainder",
    "tetragamma",
    "trigamma",
    "trigamma_difference",
    "trigamma_excess",
    "von_mises_cdf",
    "wishart_gap",
]
