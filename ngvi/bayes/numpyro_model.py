"""The NumPyro bridge: a model with its arguments as a target on ℝᴰ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from ngvi.bayes.checks import check_observed, undefined_arguments, where_it_failed
from ngvi.bayes.model_trace import Trace, is_latent, trace_model
from ngvi.bayes.prior_center import init_to_prior_center
from ngvi.bayes.subsampling import (
    Subsampled,
    covering,
    outside_of,
    subsampled_axes,
    subsampled_plates,
)
from ngvi.bayes.target import Arguments, Data, whole
from ngvi.extras import extra
from ngvi.names import scalar_names


@dataclass(frozen=True)
class Site:
    """A latent site whose values are coordinates."""

    name: str
    unconstrained_shape: tuple[int, ...]
    shape: tuple[int, ...]
    local: tuple[tuple[str, int], ...] = ()
    """The subsampled plates that it is in, each with its axis."""

    @property
    def size(self) -> int:
        """Unconstrained coordinates."""
        return int(np.prod(self.unconstrained_shape))


@dataclass(frozen=True)
class ModelTarget:
    """A NumPyro model, static part; see `ngvi.bayes.target.Target`."""

    model: Callable[..., Any]
    arguments: Arguments
    sites: tuple[Site, ...]
    enumerated: bool
    plate_nesting: int
    dtype: str
    subsampled: tuple[Subsampled, ...] = ()
    outside: tuple[str, ...] = ()
    """Where a plate is subsampled, the observed sites that are in no such plate."""
    whole: tuple[str, ...] = ()
    """Discrete sites whose values, whole numbers, are coordinates."""

    @property
    def dim(self) -> int:
        return sum(site.size for site in self.sites)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where the coordinates of each site begin."""
        ends = np.cumsum([site.size for site in self.sites]).tolist()
        return (0, *ends[:-1])

    @property
    def differentiable(self) -> bool:
        return not self.whole

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            name
            for site in self.sites
            for name in scalar_names(site.name, site.unconstrained_shape)
        )

    @property
    def program(self) -> Callable[..., Any]:
        """The model on all rows of its subsampled plates."""
        return covering(self.model, self.subsampled, None)

    def unravel(self, z: Float[Array, "d"]) -> dict[str, Array]:
        """Unconstrained values by site, in the order of the model's program."""
        parts = zip(jnp.split(z, self.starts[1:]), self.sites, strict=True)
        return {s.name: part.reshape(s.unconstrained_shape) for part, s in parts}

    def potential(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        return whole(self, data, z)

    def joint(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        model, values = self._whole_set(self._program(data), self._taken(data, z))
        return self._energy(model, data, values)

    def _whole_set(
        self, model: Callable[..., Any], values: dict[str, Array]
    ) -> tuple[Callable[..., Any], dict[str, Array]]:
        """The model at its discrete sites' values, and the values of the others."""
        if not self.whole:
            return model, values
        taken = {n: jnp.rint(values[n]).astype(int) for n in self.whole}
        rest = {n: v for n, v in values.items() if n not in taken}
        return handlers.substitute(model, data=taken), rest

    def own_prior(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        shared = {site.name for site in self.sites if not site.local}
        shown = shared | {f"_{name}_log_det" for name in shared}
        model = _only(self._program(data), shown)
        args, kwargs = self.arguments.join(data)
        return potential_energy(model, args, kwargs, self._taken(data, z))

    def once(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        if not self.outside:
            return jnp.zeros((), z.dtype)
        model = handlers.substitute(self._program(data), data=self._shared(data, z))
        return self._energy(_only(model, set(self.outside)), data, {})

    def likelihood(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """All but the prior of the sites that every batch shares, with the scales and
        masks that the model gives; of a plate's own sites that is the prior too."""
        taken, shared = self._taken(data, z), self._shared(data, z)
        local = {site.name: taken[site.name] for site in self.sites if site.local}
        model = handlers.substitute(self._program(data), data=shared)
        model = handlers.block(model, hide=[*shared, *self.outside])
        return self._energy(model, data, local)

    def _shared(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        """Values of the sites that every batch shares."""
        args, kwargs = self.arguments.join(data)
        taken = self._taken(data, z)
        values = constrain_fn(self._program(data), args, kwargs, taken)
        return {site.name: values[site.name] for site in self.sites if not site.local}

    def _program(self, data: Data) -> Callable[..., Any]:
        """The model, with the rows of its subsampled plates set."""
        return handlers.seed(covering(self.model, self.subsampled, data.rows), 0)

    def _taken(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        """Unconstrained values by site; of a plate's own sites, those of the rows."""
        values, rows = self.unravel(z), data.rows or {}
        for site in self.sites:
            for name, axis in site.local:
                if name in rows:
                    values[site.name] = values[site.name].take(rows[name], axis)
        return values

    def _energy(
        self, model: Callable[..., Any], data: Data, values: dict[str, Array]
    ) -> Float[Array, ""]:
        args, kwargs = self.arguments.join(data)
        if self.enumerated:
            from numpyro.contrib.funsor import config_enumerate, enum

            model = enum(config_enumerate(model), -self.plate_nesting - 1)
        return potential_energy(model, args, kwargs, values, enum=self.enumerated)

    def constrain(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        args, kwargs = self.arguments.join(data)
        every = self._taken(data, z)
        model, values = self._whole_set(self._program(data), every)
        sites = constrain_fn(model, args, kwargs, values, return_deterministic=True)
        return sites | {n: jnp.rint(every[n]).astype(int) for n in self.whole}


def _only(model: Callable[..., Any], names: set[str]) -> Callable[..., Any]:
    """The model with all its sites hidden but these."""

    def hidden(message: dict[str, Any]) -> bool:
        # A scan is needed for the sites inside it, `subsample` for the rows of a plate.
        passes = message["type"] in ("control_flow", "plate", "subsample")
        return not passes and message["name"] not in names

    return handlers.block(model, hide_fn=hidden)


def _recorded(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    strategy: Callable[..., Any],
) -> tuple[Trace, tuple[Subsampled, ...]]:
    """A run of the model on all rows, and the plates that it subsamples.

    Raises:
        ValueError: NumPyro refused the data; it says where.
    """
    try:
        trace = trace_model(model, args, kwargs, strategy)
        subsampled = subsampled_plates(trace)
        if subsampled:
            # All rows once: for the shapes of the sites inside.
            every = covering(model, subsampled, None)
            trace = trace_model(every, args, kwargs, strategy)
    except ValueError as error:
        # NumPyro's own checks stumble over undefined data without saying where.
        where = undefined_arguments(args, kwargs)
        if not where and (where := where_it_failed(error)):
            where = f".{where}"
        if where:
            raise ValueError(f"The model refused its data: {error}{where}") from error
        raise
    return trace, subsampled


def _check_latent(continuous: Trace, discrete: Trace) -> None:
    """Refuse latent sites that no fit can have as coordinates, or sum out."""
    if not continuous:
        raise ValueError(
            "The model has no continuous latent site: there is nothing to infer. Is "
            "every numpyro.sample given obs=…?"
        )
    for name, site in discrete.items():
        if not site["fn"].has_enumerate_support:
            raise ValueError(
                f"The latent site '{name}' ({type(site['fn']).__name__}) is discrete "
                "and cannot be enumerated. Sum it out of the model by hand, or observe "
                "it."
            )
    if discrete:
        first = next(iter(discrete))
        with extra(
            "discrete", f"The latent site '{first}' is discrete; summing it out"
        ):
            import funsor  # noqa: F401
    for name, site in continuous.items():
        if isinstance(site["fn"], dist.Delta):
            raise ValueError(
                f"The latent site '{name}' is a Delta: use numpyro.deterministic for a "
                "value that is not random."
            )


def model_target(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    init_strategy: Callable[..., Any] | None,
    *,
    keep_discrete: bool = False,
) -> tuple[ModelTarget, Data, Float[Array, "d"], Trace]:
    """Read a NumPyro model off one run of it.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        init_strategy: where its sites start.
        keep_discrete: discrete latent sites are coordinates too and not summed out.

    Returns:
        The target, its data, the starting point on ℝᴰ, and the recorded run.

    Raises:
        ValueError: a model with nothing to infer, with a discrete latent site that
            cannot be enumerated, or with observed values that are undefined or outside
            their support.
        ImportError: a discrete site is to be enumerated and funsor is not installed.
    """
    trace, subsampled = _recorded(
        model, args, kwargs, init_strategy or init_to_prior_center
    )
    latent = {name: site for name, site in trace.items() if is_latent(site)}
    discrete = {n: s for n, s in latent.items() if s["fn"].support.is_discrete}
    continuous = {n: s for n, s in latent.items() if n not in discrete}
    if keep_discrete:
        continuous, discrete = latent, {}
    _check_latent(continuous, discrete)
    check_observed(trace)

    whole = tuple(n for n, s in continuous.items() if s["fn"].support.is_discrete)
    values = {
        n: s["value"] if n in whole else biject_to(s["fn"].support).inv(s["value"])
        for n, s in continuous.items()
    }
    sites = tuple(
        Site(
            n,
            jnp.shape(values[n]),
            jnp.shape(s["value"]),
            subsampled_axes(s, subsampled),
        )
        for n, s in continuous.items()
    )
    depths = [-f.dim for s in trace.values() for f in s.get("cond_indep_stack", ())]
    start = jnp.concatenate([v.ravel() for v in values.values()])
    start = start.astype(jnp.result_type(float))

    def build(constant: bool) -> tuple[ModelTarget, Data]:
        arguments, data = Arguments.split(args, kwargs, constant)
        target = ModelTarget(
            model,
            arguments,
            sites,
            bool(discrete),
            max(depths, default=0),
            start.dtype.name,
            subsampled,
            outside_of(trace, subsampled),
            whole,
        )
        return target, data

    target, data = build(constant=False)
    try:
        jax.eval_shape(target.potential, data, start)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    ):
        # The model computes a shape or a branch from an array: keep arrays constant,
        # as numpyro.infer.MCMC does. A fit on other data then compiles anew.
        target, data = build(constant=True)
    return target, data, start, trace
