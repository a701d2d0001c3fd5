"""The settings of a rule: what differs between the published algorithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jax.sharding import Mesh

from ngvi.nets.measures import Measure
from ngvi.nets.schedules import Number


@dataclass(frozen=True)
class Settings:
    """Of a rule, checked.

    Args:
        measure: of gradient and curvature.
        learning_rate: α, a number or a function of the number of steps taken.
        precision_rate: ρ.
        noise_rate: ρ of the noise's posterior; that of the precision by default.
        momentum: β₁ of the average of ĝ.
        damping: λ ≥ 0 added to s where it preconditions the step, and not in S: the
            posterior does not know of it.
        corrected: average s with the bias of its start corrected.
        factored: Kronecker factors are damped each by itself, as published for noisy
            K-FAC, which overstates S: an approximation, and sampled from as it is.
        retraction: "first" is the average above; "second" for an ĥ of any sign.
        root: precondition by √s, as Adam does: then it is no natural gradient.
        trust: the longest step of the mean, (Δᵀ S Δ)^½ in units of √P, in which a draw
            of q is about 1 from m; none by default.
        samples: weights drawn for every step.
        antithetic: they come in pairs, m ± A ε.
        fresh_every: new normals are drawn every so many steps, a power of 2. In between
            each layer's part of A ε is used again with another sign, see
            `ngvi.nets.draws.signs`: less work, and noise that cancels over the steps.
            Above 2 only for rows whose layers are independent.
        mesh: of devices, over whose first axis the draws of a step are shared out.
        accumulate: a batch is taken in so many equal parts, one after the other, whose
            estimates are averaged: the step of the whole batch in the memory of a part.
        measure_every: estimate the curvature every so many steps.
        refresh: factorise S every so many steps, a multiple of `measure_every`.
        prior_in_momentum: average ĝ + (κ/N) δ m in place of ĝ.
        prior_at_draw: take that at the weights drawn: more noise, the same mean.
    """

    measure: Measure
    learning_rate: Number = 1e-3
    precision_rate: float = 0.01
    noise_rate: float | None = None
    momentum: float = 0.9
    damping: float = 0.0
    trust: float | None = None
    corrected: bool = False
    factored: bool = False
    retraction: Literal["first", "second"] = "first"
    root: bool = False
    samples: int = 1
    antithetic: bool = False
    fresh_every: int = 1
    mesh: Mesh | None = None
    accumulate: int = 1
    measure_every: int = 1
    refresh: int = 1
    prior_in_momentum: bool = False
    prior_at_draw: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (
            ("precision_rate", 0, 1),
            ("noise_rate", 0, 1),
            ("momentum", 0, 1),
            ("damping", 0, float("inf")),
            ("samples", 1, float("inf")),
            ("fresh_every", 1, float("inf")),
            ("accumulate", 1, float("inf")),
            ("measure_every", 1, float("inf")),
            ("refresh", 1, float("inf")),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(
                    f"{name} must be from {least:g} to {most:g}, got {value}"
                )
        if self.refresh % self.measure_every:
            raise ValueError(
                f"refresh must be a multiple of measure_every, {self.measure_every}, "
                f"got {self.refresh}"
            )
        if self.momentum == 1:
            raise ValueError("momentum must be less than 1: else the mean never moves")
        if not callable(self.learning_rate) and not self.learning_rate >= 0:
            raise ValueError(
                f"learning_rate must be at least 0, got {self.learning_rate}"
            )
        if self.trust is not None and not self.trust > 0:
            raise ValueError(f"trust must be positive, or None, got {self.trust}")
        if self.retraction not in ("first", "second"):
            raise ValueError(
                f"retraction must be 'first' or 'second', got {self.retraction!r}"
            )
        if self.antithetic and self.samples % 2:
            raise ValueError(
                f"antithetic draws come in pairs: samples is odd, {self.samples}"
            )
        if self.fresh_every & (self.fresh_every - 1):
            raise ValueError(
                f"fresh_every must be a power of 2, got {self.fresh_every}: so that "
                "the signs of the steps between sum to 0"
            )
        devices = 1 if self.mesh is None else self.mesh.devices.shape[0]
        if self.samples % devices:
            raise ValueError(
                f"samples must be a multiple of the {devices} devices along the mesh's "
                f"first axis, got {self.samples}"
            )

    @property
    def always(self) -> bool:
        """Whether every step does everything."""
        return self.refresh == 1
