"""A diagonal curvature from the gradient of a batch, and no more.

| measure            | ĥ            | used by                |
|--------------------|--------------|------------------------|
| `SquaredGradient`  | ĝ²           | noisy Adam, IVON       |
| `Price`            | ĝ (w − m) S  | IVON                   |

ĝ² has the expectation (1/B) E g_i² + (1 − 1/B)(E g)², too small by up to B. The other
is Price's theorem: unbiased for the Hessian itself, of any sign, and noisy.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Array, Float

from ngvi.fisher.batches import Batch
from ngvi.fisher.likelihoods import Likelihood
from ngvi.linalg import SemidefiniteDiagonal
from ngvi.nets.measures import Draw, Estimate, Measure, Site
from ngvi.nets.net import Net
from ngvi.nets.pieces import over_parts


def gradient_alone(draw: Draw, batch: Batch, parts: int) -> Estimate:
    """No curvature; of a batch that is taken in so many parts."""
    net, likelihood = draw.net, draw.likelihood
    gradient, outputs = over_parts(
        lambda part: net.gradient(draw.w, likelihood, part.x, part.y), batch, parts
    )
    return Estimate(gradient, None, outputs)


class GradientOnly(Measure):
    """A diagonal from the gradient of the batch alone, of any model."""

    @abstractmethod
    def of_gradient(self, gradient: Float[Array, "p"], draw: Draw) -> Float[Array, "p"]:
        """The diagonal of ĥ."""

    def measure(self, draw: Draw, batch: Batch, site: Site) -> Estimate:
        return self.measure_in_parts(draw, batch, site, 1)

    def measure_in_parts(
        self, draw: Draw, batch: Batch, site: Site, parts: int
    ) -> Estimate:
        # Of the whole batch's gradient, of which ĝ² is no mean over parts.
        found = gradient_alone(draw, batch, parts)
        diagonal = SemidefiniteDiagonal(self.of_gradient(found.gradient, draw))
        return found._replace(curvature=diagonal)

    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> SemidefiniteDiagonal:
        return SemidefiniteDiagonal(net.zeros + value)


@dataclass(frozen=True)
class SquaredGradient(GradientOnly):
    """ĝ²."""

    def of_gradient(self, gradient: Float[Array, "p"], draw: Draw) -> Float[Array, "p"]:
        return gradient**2


@dataclass(frozen=True)
class Price(GradientOnly):
    """ĝ (w − m) S: Price's theorem, E[∇²ℓ̄] = E[∇ℓ̄ (w − m)ᵀ] S.

    S is the whole precision, (N/κ) s + δ: what implementations call the effective
    sample size times the Hessian.
    """

    def of_gradient(self, gradient: Float[Array, "p"], draw: Draw) -> Float[Array, "p"]:
        return gradient * draw.precision.mv(draw.w - draw.mean)
