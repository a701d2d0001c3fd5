"""The NumPyro bridge: a model with its arguments as a target on ℝᴰ."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from ngvi.bayes.target import Arguments, Data, coordinate_names


@dataclass(frozen=True)
class Site:
    """A continuous latent site."""

    name: str
    unconstrained_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dims: tuple[str | None, ...]
    """The plate of each axis of a value; None where no plate names it."""

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

    @property
    def dim(self) -> int:
        return sum(site.size for site in self.sites)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            name
            for site in self.sites
            for name in coordinate_names(site.name, site.unconstrained_shape)
        )

    def unravel(self, z: Float[Array, "d"]) -> dict[str, Array]:
        """Unconstrained values by site, in the order of the model's program."""
        ends = np.cumsum([site.size for site in self.sites])[:-1]
        parts = zip(jnp.split(z, ends), self.sites, strict=True)
        return {s.name: part.reshape(s.unconstrained_shape) for part, s in parts}

    def potential(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        args, kwargs = self.arguments.join(data)
        model = handlers.seed(self.model, 0)
        if self.enumerated:
            from numpyro.contrib.funsor import config_enumerate, enum

            model = enum(config_enumerate(model), -self.plate_nesting - 1)
        return potential_energy(
            model, args, kwargs, self.unravel(z), enum=self.enumerated
        )

    def constrain(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        args, kwargs = self.arguments.join(data)
        return constrain_fn(
            handlers.seed(self.model, 0),
            args,
            kwargs,
            self.unravel(z),
            return_deterministic=True,
        )


def _center(fn: dist.Distribution) -> Array | None:
    """A central value of a prior: its mean, or its median where that is infinite or can
    lie far out (a log-normal's); None where it has no closed form."""

    def median() -> Array:
        return fn.icdf(jnp.full(fn.shape(), 0.5))

    def mean() -> Array:
        return jnp.broadcast_to(fn.mean, fn.shape())

    base = fn
    while isinstance(
        base, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution
    ):
        base = base.base_dist
    pushed = isinstance(base, dist.TransformedDistribution)
    for value in (median, mean) if pushed else (mean, median):
        try:
            center = value()
        # What NumPyro raises where a formula is missing, or a package for it.
        except (NotImplementedError, AttributeError, TypeError, ImportError):
            continue
        if _finite(center):
            return center
    return None


def _finite(x: Array) -> bool:
    """Whether all values are finite, as far as is known: inside of a `scan` they are
    not, and taken for it."""
    return isinstance(x, jax.core.Tracer) or bool(jnp.isfinite(x).all())


def init_to_prior_center(site: dict[str, Any] | None = None) -> Any:
    """Start each site at the center of its prior: the mean, or the median.

    A flat (improper) prior has neither: its site starts near 0 on the unconstrained
    line. Unlike `numpyro.infer.init_to_uniform`, this does not depend on the units in
    which a prior is written, and it is the same for every seed.
    """
    if site is None:
        return partial(init_to_prior_center)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    fn = site["fn"]
    if fn.support is not None and fn.support.is_discrete:
        return None
    transform = biject_to(fn.support)
    sample_shape = site["kwargs"].get("sample_shape", ())
    if not isinstance(fn, dist.ImproperUniform):
        center = _center(fn)
        if center is not None:
            unconstrained = transform.inv(center)
            if _finite(unconstrained):
                return jnp.broadcast_to(center, sample_shape + fn.shape())
    # Not exactly 0: densities written with |x| or max(x, 0) have no curvature there.
    free = transform.inverse_shape(sample_shape + fn.shape())
    return transform(1e-6 * (1 + jnp.arange(np.prod(free, dtype=int))).reshape(free))


def trace_model(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    init_strategy: Callable[..., Any],
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """One run of the model at its starting values, recorded."""
    if not isinstance(init_strategy, partial):
        init_strategy = init_strategy()
    seeded = handlers.seed(model, jax.random.key(seed))
    started = handlers.substitute(seeded, substitute_fn=init_strategy)
    return handlers.trace(started).get_trace(*args, **kwargs)


def is_latent(site: dict[str, Any]) -> bool:
    """A sample site without an observed value."""
    return site["type"] == "sample" and not site["is_observed"]


def is_observed(site: dict[str, Any]) -> bool:
    """An observed sample site; `numpyro.factor` is none."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], dist.Unit)
    )


def _event_dim(site: dict[str, Any]) -> int:
    """Of a deterministic value, which does not say: the fewest axes on the right that
    leave an axis of the right length to every plate."""
    shape, frames = np.shape(site["value"]), site["cond_indep_stack"]
    for event in range(len(shape)):
        batch = shape[: len(shape) - event]
        if all(-f.dim <= len(batch) and batch[f.dim] == f.size for f in frames):
            return event
    return 0


def axis_names(site: dict[str, Any]) -> tuple[str | None, ...]:
    """The plate of each axis of a site's value, from the right; event axes have none,
    unless named by `infer={"event_dims": [...]}`."""
    ndim = np.ndim(site["value"])
    event = site["fn"].event_dim if site["type"] == "sample" else _event_dim(site)
    named: list[str | None] = [None] * ndim
    for frame in site["cond_indep_stack"]:
        axis = ndim - event + frame.dim
        if 0 <= axis < ndim and np.shape(site["value"])[axis] == frame.size:
            named[axis] = frame.name
    events = site.get("infer", {}).get("event_dims", ())
    for axis, name in zip(range(ndim - event, ndim), events, strict=False):
        named[axis] = name
    return tuple(named)


def _count(bad: Any, value: Any) -> str:
    return f"{int(jnp.sum(bad))} of {np.size(value)} values"


def check_observed(trace: dict[str, dict[str, Any]]) -> None:
    """Refuse observed values that no fit could use.

    Raises:
        ValueError: names the site, and says how many values are NaN, infinite, or
            outside the distribution's support.
    """
    for name, site in trace.items():
        if not is_observed(site):
            continue
        value = jnp.asarray(site["value"])
        mask = getattr(site["fn"], "_mask", None)
        used = jnp.ones(value.shape, bool)
        if mask is not None and not isinstance(mask, bool):
            event = (1,) * site["fn"].event_dim
            used = jnp.broadcast_to(
                jnp.reshape(mask, jnp.shape(mask) + event), value.shape
            )
        bad = ~jnp.isfinite(value) & used
        if bool(bad.any()):
            raise ValueError(
                f"The observed site '{name}' holds NaN or infinity in "
                f"{_count(bad, value)}. Drop or impute them, or mask them with "
                "numpyro.handlers.mask."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            support = site["fn"].support
            outside = ~support(value) if support is not None else jnp.asarray(False)
        if mask is None and bool(outside.any()):
            raise ValueError(
                f"The observed site '{name}' has {_count(outside, outside)} outside "
                f"the support of its distribution, {type(site['fn']).__name__} on "
                f"{support}."
            )


def undefined_arguments(args: tuple, kwargs: dict[str, Any]) -> str:
    """Which array arguments hold NaN or infinity, as a sentence; empty if none."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path((args, kwargs))[0]:
        if not isinstance(leaf, np.ndarray | jax.Array) or leaf.dtype.kind != "f":
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if bad.any():
            name = jax.tree_util.keystr(path[1:], simple=True)
            which = f"'{name}'" if path[0].idx else f"number {name}"
            found.append(f"argument {which} ({_count(bad, leaf)})")
    return f" NaN or infinity stands in {', '.join(found)}." if found else ""


def blame(trace: dict[str, dict[str, Any]]) -> str:
    """Which site makes the log density infinite or undefined at the start, in words."""
    culprits = []
    for name, site in trace.items():
        if site["type"] != "sample":
            continue
        log_prob = site["fn"].log_prob(site["value"])
        if not bool(jnp.isfinite(log_prob).all()):
            culprits.append(f"'{name}' (log density {float(jnp.sum(log_prob))})")
    if culprits:
        return f"The cause is site {', '.join(culprits)}."
    return (
        "Every site's own density is finite there; its gradient or a transform is not."
    )


def model_target(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    init_strategy: Callable[..., Any] | None,
) -> tuple[ModelTarget, Data, Float[Array, "d"], dict[str, dict[str, Any]]]:
    """Read a NumPyro model off one run of it.

    Returns:
        The target, its data, the starting point on ℝᴰ, and the recorded run.

    Raises:
        ValueError: a model with nothing to infer, with a discrete latent site that
            cannot be enumerated, with a subsampled plate, or with observed values that
            are undefined or outside their support.
        ImportError: a discrete site is to be enumerated and funsor is not installed.
    """
    strategy = init_strategy or init_to_prior_center
    try:
        trace = trace_model(model, args, kwargs, strategy)
    except ValueError as error:
        undefined = undefined_arguments(args, kwargs)
        if undefined:  # NumPyro's own checks stumble over it without saying where.
            raise ValueError(
                f"The model refused its data: {error}{undefined}"
            ) from error
        raise
    latent = {name: site for name, site in trace.items() if is_latent(site)}
    discrete = {n: s for n, s in latent.items() if s["fn"].support.is_discrete}
    continuous = {n: s for n, s in latent.items() if n not in discrete}
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
        try:
            import funsor  # noqa: F401
        except ImportError:
            raise ImportError(
                f"The latent site '{next(iter(discrete))}' is discrete; summing it out "
                "needs the package funsor: pip install 'ngvi[discrete]'."
            ) from None
    for name, site in continuous.items():
        if isinstance(site["fn"], dist.Delta):
            raise ValueError(
                f"The latent site '{name}' is a Delta: use numpyro.deterministic for a "
                "value that is not random."
            )
    for name, site in trace.items():
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
            raise ValueError(
                f"The plate '{name}' is subsampled ({site['args'][1]} of "
                f"{site['args'][0]}). fit uses all data at once: drop subsample_size."
            )
    check_observed(trace)

    values = {
        n: biject_to(s["fn"].support).inv(s["value"]) for n, s in continuous.items()
    }
    sites = tuple(
        Site(n, jnp.shape(values[n]), jnp.shape(s["value"]), axis_names(s))
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
