"""The settings of a step: what differs between the published algorithms."""

from __future__ import annotations

from dataclasses import dataclass

from jax.sharding import Mesh

from ngvi.nets.optimizers.measures import Measure, Products, Rescaled
from ngvi.nets.optimizers.pieces import checked
from ngvi.nets.schedules import Number


@dataclass(frozen=True)
class Settings:
    """Of a step, checked. A schedule is a function of the number of steps taken.

    Args:
        measure: of the curvature F.
        learning_rate: α; None for that of the local quadratic model, at every step.
        momentum: μ, the part of the last step that is taken again; None for that of the
            quadratic model.
        damping: λ; where it is adapted, at the start.
        adapt_every: Levenberg and Marquardt's rule every so many steps T; 0 for a
            damping that is given.
        damping_factor: ω < 1; λ is multiplied or divided by ω^T.
        binding: λ is made smaller only where its part of the curvature along the step,
            λ sᵀs / sᵀ (F + λ + η) s, is at least this; 0 for any.
        min_damping: of an adapted λ.
        max_damping: likewise.
        max_kl: the longest step, ½ sᵀ F s, in nats; without a quadratic model that of
            α times the natural gradient, ½ α² gᵀ (F + λ)⁻¹ g.
        max_halvings: a step is halved until the objective is lower, at most so often,
            and else not taken; 0 takes any step.
        l2: η of a penalty ½ η ‖θ‖² in the objective and in its curvature.
        weight_decay: η of what is added to the natural gradient, η θ, as optax's
            `add_decayed_weights` does; no part of the objective.
        gradient_decay: β₁ of a running average of the gradient.
        curvature_decay: β of that of the curvature, both with the bias of their starts
            corrected; 1 is the mean over all batches.
        measure_every: measure the curvature every so many steps.
        refresh: factorise F + λ every so many steps, a multiple of `measure_every`.
        staggered: factorise one layer after the other, each every `refresh` steps.
        factored: Kronecker factors are damped each by itself, see
            `ngvi.fisher.Curvature.damp`: cheaper, and more damping than λ.
        root: precondition by the root of F, as Adam does: no natural gradient.
        curvature_rows: examples of a batch that F is measured on, evenly spaced from a
            random one on; None for all.
        model_rows: likewise for the quadratic model.
        accumulate: a batch is taken in so many equal parts, one after the other.
        mesh: of devices, over whose first axis batches are shared out, and the layers'
            factorisations.
        diagnostics: measure all of `Info` at every step.
        max_iterations: of conjugate gradients.
        progress: the gain of an iteration, relative to all so far, below which they
            stop (Martens, 2010, section 4.4).
        warm_start: the part of the last solution that the next solve starts from.
    """

    measure: Measure
    learning_rate: Number | None = None
    momentum: Number | None = None
    damping: Number = 1e-2
    adapt_every: int = 0
    damping_factor: float = 0.95
    binding: float = 0.05
    min_damping: float = 1e-8
    max_damping: float = 1e8
    max_kl: float | None = None
    max_halvings: int = 0
    l2: float = 0.0
    weight_decay: Number = 0.0
    gradient_decay: float = 0.0
    curvature_decay: float = 0.95
    measure_every: int = 1
    refresh: int = 1
    staggered: bool = False
    factored: bool = False
    root: bool = False
    curvature_rows: int | None = None
    model_rows: int | None = None
    accumulate: int = 1
    mesh: Mesh | None = None
    diagnostics: bool = False
    max_iterations: int = 100
    progress: float = 5e-4
    warm_start: float = 0.95

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not callable(value):
                checked(name, value, least, most)
        if self.refresh % self.measure_every:
            raise ValueError(
                f"refresh must be a multiple of measure_every, {self.measure_every}, "
                f"got {self.refresh}"
            )
        if self.learning_rate is not None and self.momentum is None:
            raise ValueError(
                "momentum=None takes it from the quadratic model, together with the "
                "learning rate: give a number, such as 0.0, or learning_rate=None"
            )
        if self.adapt_every and callable(self.damping):
            raise ValueError(
                "a damping that is adapted has no schedule: give the number it starts "
                "from, or adapt_every=0"
            )
        if self.root and self.learning_rate is None:
            raise ValueError(
                "root=True is no natural gradient, and its step no multiple of one: "
                "give a learning rate"
            )
        nothing = self.matrix_free or self.measure.inverse_free
        if nothing and (self.root or self.factored or self.staggered):
            raise ValueError(
                "root, factored and staggered are for factorised curvatures, not for "
                "products alone, nor for roots of an inverse"
            )
        if self.staggered and isinstance(self.measure, Rescaled):
            raise ValueError(
                "staggered is not for EK-FAC, whose basis changes for all layers at "
                "once: take kfac"
            )

    @property
    def matrix_free(self) -> bool:
        """Whether a step solves by products of its own batch."""
        return isinstance(self.measure, Products)


_ANY = float("inf")
_RANGES = (
    ("learning_rate", 0, _ANY),
    ("momentum", 0, 1),
    ("damping", 0, _ANY),
    ("adapt_every", 0, _ANY),
    ("damping_factor", 1e-3, 1),
    ("binding", 0, 1),
    ("min_damping", 0, _ANY),
    ("max_damping", 0, _ANY),
    ("max_kl", 1e-30, _ANY),
    ("max_halvings", 0, 60),
    ("l2", 0, _ANY),
    ("weight_decay", 0, _ANY),
    ("gradient_decay", 0, 1),
    ("curvature_decay", 0, 1),
    ("measure_every", 1, _ANY),
    ("refresh", 1, _ANY),
    ("curvature_rows", 1, _ANY),
    ("model_rows", 1, _ANY),
    ("accumulate", 1, _ANY),
    ("max_iterations", 1, _ANY),
    ("progress", 0, 1),
    ("warm_start", 0, 1),
)
