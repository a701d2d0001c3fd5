"""An algorithm with its model: what a training loop calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.batches import Batch
from ngvi.fisher.likelihoods import Likelihood, as_likelihood
from ngvi.fisher.problem import Apply
from ngvi.linalg import (
    Dense,
    LowRankPlusDiagonal,
    PositiveDefinite,
    SemidefiniteDiagonal,
)
from ngvi.nets.measures import Site
from ngvi.nets.net import Net
from ngvi.nets.observation_noise import ObservationNoise
from ngvi.nets.posterior import PartialPosterior, WeightPosterior
from ngvi.nets.prior import GammaPrior, Prior
from ngvi.nets.state import Info, State
from ngvi.nets.train import run_epochs
from ngvi.nets.update import Rule, step


@dataclass(frozen=True)
class Algorithm:
    """A rule, applied to a model. Made by the functions of `ngvi.nets.rows`.

    An optax-style loop; each step is compiled once for its rule and shapes:

        state = algorithm.init(params, (x, y))
        for batch in batches:
            state, info = algorithm.step(state, batch, key)
        draws = algorithm.sample(state, key, (10,))

    Args:
        apply: (params, x) ↦ outputs, as in `ngvi.fisher.fisher`.
        likelihood: as there; or an `ObservationNoise`, whose precision is learned.
        data_size: N.
        rule: how q moves.
        prior_precision: δ, see `Prior.of`.
        prior_mean: m₀, a pytree like the parameters; zero by default.
        hyperprior: to learn a δ for each layer, whenever S is factorised.
        groups: to learn more than one for each, see `Prior.of`.
        kl_weight: κ; below 1 q is a cold posterior.
        initial_curvature: s is this · I before the first step.
    """

    apply: Apply
    likelihood: Any
    data_size: int
    rule: Rule
    prior_precision: Any = 1.0
    hyperprior: GammaPrior | None = None
    kl_weight: float = 1.0
    initial_curvature: float = 1.0
    prior_mean: Any = None
    groups: Any = None

    def __post_init__(self) -> None:
        if not self.data_size >= 1:
            raise ValueError(f"data_size must be at least 1, got {self.data_size}")
        for name in ("kl_weight", "initial_curvature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def init(self, params: Any, batch: tuple[Any, Any]) -> State:
        """Before the first step.

        Args:
            params: where m starts, a pytree of floating arrays.
            batch: examples (x, y) as `step` takes them; only their shapes matter, and
                that they are what they must be: all data may be given to be checked.

        Raises:
            ValueError: parameters that are not floating or not used, numbers that are
                not finite, labels outside of the likelihood's support, outputs that do
                not fit it, a prior precision that is not positive, a rule that is for
                diagonal precisions only.
        """
        learned = isinstance(self.likelihood, ObservationNoise)
        params, (x, y) = jax.tree.map(jnp.asarray, (params, batch))
        net, likelihood = checked_net(self.apply, self.likelihood, params, x, y)
        prior = Prior.of(
            self.prior_precision,
            net.layout,
            self.hyperprior,
            net.dtype,
            mean=self.prior_mean,
            groups=self.groups,
        )
        few = self.rule.measure.batch(x, y, jax.random.key(0))
        mean = net.layout.vector(params)
        scale = jnp.asarray(self.data_size / self.kl_weight, net.dtype)
        value = self.initial_curvature
        site, precision = _begin(self.rule, net, value, likelihood, few, prior, scale)
        _check_diagonal(self.rule, site)
        _check_independent(self.rule, precision)
        return State(
            mean=mean,
            precision=precision,
            site=site,
            momentum=jnp.zeros_like(mean),
            prior=prior,
            likelihood=likelihood,
            noise=self.likelihood if learned else None,
            scale=scale,
            data_size=jnp.asarray(self.data_size, net.dtype),
            steps=jnp.asarray(0),
            away=self.rule.nothing_kept(mean),
            net=net,
        )

    def step(
        self, state: State, batch: tuple[Any, Any], key: Key[Array, ""]
    ) -> tuple[State, Info]:
        """One step.

        Args:
            state: before it.
            batch: (x, y), whose mean stands for that of all N examples.
            key: of the weights and labels drawn.
        """
        return step(self.rule, state, *batch, key)

    def run(
        self,
        state: State,
        data: tuple[Any, Any],
        key: Key[Array, ""],
        *,
        epochs: int,
        batch_size: int,
    ) -> tuple[State, Float[Array, "steps"]]:
        """Epochs of shuffled batches, and the loss of every step; see `run_epochs`."""
        return run_epochs(
            self.rule, state, *data, key, epochs=epochs, batch_size=batch_size
        )

    def sample(
        self, state: State, key: Key[Array, ""], shape: tuple[int, ...] = ()
    ) -> Any:
        """Weights drawn from q, pytrees like the parameters with these leading axes."""
        return self.posterior(state).sample(key, shape)

    def posterior(self, state: State) -> WeightPosterior | PartialPosterior:
        """q, to be kept when the training is over."""
        whole = WeightPosterior.of(state)
        drawn = self.rule.measure.random_part(state.net)
        return whole if drawn is None else PartialPosterior.of_layer(whole, drawn)


def checked_net(
    apply: Apply, likelihood: Any, params: Any, x: Any, y: Any
) -> tuple[Net, Likelihood]:
    """A model and its likelihood, that of the noise if it is learned.

    Raises:
        ValueError: see `Algorithm.init`.
    """
    learned = isinstance(likelihood, ObservationNoise)
    used = as_likelihood(likelihood.likelihood if learned else likelihood)
    net = Net.of(apply, params, x)
    outputs = jax.eval_shape(apply, params, x)
    used.check_outputs(outputs)
    _check_finite("params", params)
    _check_finite("x", x)
    if is_concrete(*jax.tree.leaves(y)):
        used.check_labels(outputs, y)
    if is_concrete(*jax.tree.leaves((params, x))):
        net.check_examples_apart(params, x)
    return net, used


@partial(jax.jit, static_argnums=(0, 1, 2))
def _begin(
    rule: Rule,
    net: Net,
    value: float,
    likelihood: Likelihood,
    few: Batch,
    prior: Prior,
    scale: Array,
) -> tuple[Site, PositiveDefinite]:
    """s = value · I, and S."""
    site = rule.measure.begin(net, likelihood, few, value)
    return site, rule.precision(site, prior, scale)


def _check_finite(name: str, tree: Any) -> None:
    """Hold floating numbers, where they are known, to being finite.

    Raises:
        ValueError: with the first that is not.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_concrete(leaf) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        wrong = ~np.isfinite(np.asarray(leaf))
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must be finite, got "
                f"{leaf[index]} at index {index} ({int(wrong.sum())} such in all)"
            )


def _check_diagonal(rule: Rule, site: Any) -> None:
    """Refuse what is written for diagonals where s is no diagonal."""
    if isinstance(site, SemidefiniteDiagonal):
        return
    for name, asked in (
        ("retraction='second'", rule.retraction == "second"),
        ("root=True", rule.root),
    ):
        if asked:
            raise ValueError(
                f"{name} is for diagonal precisions, not for {type(site).__name__}: "
                "take vogn, noisy_adam, vadam or ivon"
            )


def _check_independent(rule: Rule, precision: PositiveDefinite) -> None:
    """Refuse draws whose layers change signs one by one where they are correlated."""
    if rule.fresh_every > 2 and isinstance(precision, Dense | LowRankPlusDiagonal):
        raise ValueError(
            f"fresh_every={rule.fresh_every} gives each layer's noise a sign of its "
            "own, but here the layers are correlated: take 1, or 2, which changes all "
            "signs together"
        )
