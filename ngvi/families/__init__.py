"""Exponential families in natural and mean coordinates."""

from ngvi.families.base import ExponentialFamily
from ngvi.families.bernoulli import Bernoulli
from ngvi.families.beta import Beta
from ngvi.families.binomial import Binomial
from ngvi.families.categorical import Categorical
from ngvi.families.chi_squared import ChiSquared
from ngvi.families.custom import from_log_partition
from ngvi.families.dirichlet import Dirichlet
from ngvi.families.exponential import Exponential
from ngvi.families.gamma import Gamma
from ngvi.families.gaussian import Gaussian
from ngvi.families.geometric import Geometric
from ngvi.families.inverse_gamma import InverseGamma
from ngvi.families.inverse_gaussian import InverseGaussian
from ngvi.families.inverse_wishart import InverseWishart
from ngvi.families.laplace import Laplace
from ngvi.families.log_series import LogSeries
from ngvi.families.matrix_normal_wishart import MatrixNormalWishart
from ngvi.families.mixture import Mixture
from ngvi.families.multinomial import Multinomial
from ngvi.families.negative_binomial import NegativeBinomial
from ngvi.families.normal import LogNormal, Normal
from ngvi.families.normal_gamma import NormalGamma
from ngvi.families.normal_inverse_wishart import NormalInverseWishart
from ngvi.families.numpyro_bridge import from_numpyro
from ngvi.families.poisson import Poisson
from ngvi.families.product import Product
from ngvi.families.von_mises import VonMises
from ngvi.families.von_mises_fisher import VonMisesFisher
from ngvi.families.weibull import Rayleigh, Weibull
from ngvi.families.wishart import Wishart

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ChiSquared",
    "Dirichlet",
    "Exponential",
    "ExponentialFamily",
    "Gamma",
    "Gaussian",
    "Geometric",
    "InverseGamma",
    "InverseGaussian",
    "InverseWishart",
    "Laplace",
    "LogNormal",
    "LogSeries",
    "MatrixNormalWishart",
    "Mixture",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "NormalGamma",
    "NormalInverseWishart",
    "Poisson",
    "Product",
    "Rayleigh",
    "VonMises",
    "VonMisesFisher",
    "Weibull",
    "Wishart",
    "from_log_partition",
    "from_numpyro",
]
