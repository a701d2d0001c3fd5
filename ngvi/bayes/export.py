"""From a posterior to an `Archive`: what is taken along, and how it is labelled."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import numpyro.distributions as dist

from ngvi.bayes.archive import FORMAT, Archive, plain
from ngvi.bayes.labels import Axes, dataset, portable, storable
from ngvi.bayes.model_trace import (
    Trace,
    axis_names,
    base_dist,
    count_observations,
    is_latent,
    observed_sites,
)
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.replicates import (
    MOST_NUMBERS,
    from_prior,
    kept_draws,
    log_likelihoods,
    replicated,
)
from ngvi.bayes.stored_gaussian import store

if TYPE_CHECKING:
    from xarray import Dataset

    from ngvi.bayes.posterior import Posterior

PRIOR_DRAWS = 1024


class _Exporter:
    """Collects groups and the notes on what had to be left out."""

    def __init__(self, posterior: Posterior) -> None:
        import ngvi

        self.posterior = posterior
        self.log_p, self.log_q, self.sites = posterior._summary_draws
        self.trace: Trace = posterior.trace or {}
        self.axes: Axes = {
            name: axis_names(site)
            for name, site in self.trace.items()
            if site["type"] in ("sample", "deterministic")
        }
        self.observed = observed_sites(self.trace)
        self.numbers = count_observations(self.trace)
        self.version = ngvi.__version__
        self.groups: dict[str, Dataset] = {}
        self.notes: list[str] = []
        self.gaussian: dict[str, Any] = {}

    def add(
        self,
        group: str,
        arrays: dict[str, Any],
        axes: Axes | None = None,
        draws: np.ndarray | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> None:
        """Add a group; with `draws`, the labels of each array's first axis."""
        kept = {}
        for name, value in arrays.items():
            array = storable(value)
            if array is None:
                self.notes.append(f"{group}: '{name}' is left out: not real numbers.")
            else:
                kept[name] = array if draws is None else array[None]
        if not kept:
            return
        leading = {} if draws is None else {"chain": np.arange(1), "draw": draws}
        library = {
            "inference_library": "ngvi",
            "inference_library_version": self.version,
        }
        names = self.axes if axes is None else axes
        self.groups[group] = dataset(kept, names, leading, library | (attrs or {}))

    def try_to_add(self, group: str, make: Callable[[], None]) -> None:
        """Run user code that may fail: a fit must not be lost to it."""
        try:
            make()
        except Exception as error:
            text = f"{group} is left out: {type(error).__name__}: {error}"
            self.notes.append(text)
            warnings.warn(text, stacklevel=4)

    # -- the groups --------------------------------------------------------------

    def fit(self) -> None:
        """posterior, sample_stats, importance, gaussian and fit_history."""
        draws = np.arange(self.log_p.size)
        self.add("posterior", self.sites, draws=draws)
        statistics = {
            "lp": self.log_p,
            "log_q": self.log_q,
            "log_weight": self.log_p - self.log_q,
        }
        self.add("sample_stats", statistics, {}, draws)
        # The verdict's own draws: the summary's, and more where that took more.
        weights = self.posterior.log_weights
        self.groups["importance"] = dataset(
            {"log_weight": weights}, {}, {"check_draw": np.arange(weights.size)}
        )
        try:
            self.posterior._needs_gaussian("the group", "only its draws are kept")
            arrays, self.gaussian = store(self.posterior.gaussian)
        except TypeError as error:
            self.notes.append(f"gaussian is left out: {str(error).rstrip('.')}.")
        else:
            self.groups["gaussian"] = dataset(arrays, {})
        history = dict(self.posterior.history)
        iteration = history.pop("iteration")
        self.groups["fit_history"] = dataset(
            history, {}, {"iteration": np.asarray(iteration)}
        )

    def data(self, target: ModelTarget) -> None:
        """observed_data and constant_data."""
        values = {name: self.trace[name]["value"] for name in self.observed}
        self.add("observed_data", values)
        args, kwargs = target.arguments.join(self.posterior.data)
        constant = {}
        for name, value in named_arrays(target.model, args, kwargs):
            if any(_equal(value, np.asarray(v)) for v in values.values()):
                continue
            if value.size > MOST_NUMBERS:
                self.notes.append(f"constant_data: '{name}' is left out: too large.")
                continue
            constant[name] = value
        self.add("constant_data", constant, {})

    def predictive(self, target: ModelTarget) -> None:
        """posterior_predictive and log_likelihood."""
        if not self.observed:
            self.notes.append("posterior_predictive is left out: nothing is observed.")
            return
        every = self.log_p.size
        kept = kept_draws(every, self.numbers)
        attrs = {}
        if kept.size < every:
            attrs["thinned"] = (
                f"{kept.size} of {every} draws, evenly spaced, because all of them "
                f"would hold more than {MOST_NUMBERS:,d} numbers"
            )
        latent = {site.name: self.sites[site.name][kept] for site in target.sites}
        data, observed, numbers = self.posterior.data, self.observed, self.numbers
        seed = self.posterior.diagnostics.seed

        def replicate() -> None:
            values = replicated(target, data, latent, observed, numbers, seed)
            self.add("posterior_predictive", values, draws=kept, attrs=attrs)

        def weigh() -> None:
            values = log_likelihoods(target, data, latent, observed, numbers)
            axes = {}
            for name in observed:
                named, event = self.axes[name], self.trace[name]["fn"].event_dim
                batch = named[: len(named) - event]
                axes[name] = batch if len(batch) == values[name].ndim - 1 else ()
            self.add("log_likelihood", values, axes, kept, attrs)

        self.try_to_add("posterior_predictive", replicate)
        if target.enumerated:
            self.notes.append(
                "log_likelihood is left out: discrete sites were summed out, so that "
                "observations have no density of their own given the other sites."
            )
            return
        self.try_to_add("log_likelihood", weigh)

    def prior(self, target: ModelTarget) -> None:
        """prior and prior_predictive."""
        if self.posterior.data.prior is not None:
            self.notes.append("prior is left out: it is another posterior's.")
            return
        improper = [
            name
            for name, site in self.trace.items()
            if is_latent(site)
            and isinstance(base_dist(site["fn"]), dist.ImproperUniform)
        ]
        if improper:
            names = ", ".join(f"'{name}'" for name in improper)
            self.notes.append(
                f"prior is left out: the prior of {names} is improper and has no draws."
            )
            return
        sites = tuple(self.sites) + self.observed
        numbers = self.numbers + sum(v[0].size for v in self.sites.values())
        kept = kept_draws(PRIOR_DRAWS, numbers)
        draws = np.arange(kept.size)

        def draw() -> None:
            values = from_prior(
                target,
                self.posterior.data,
                kept.size,
                sites,
                numbers,
                self.posterior.diagnostics.seed,
            )
            observed = {name: values.pop(name) for name in self.observed}
            self.add("prior", values, draws=draws)
            self.add("prior_predictive", observed, draws=draws)

        self.try_to_add("prior", draw)

    # -- the record --------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """The plain values that go with the groups."""
        posterior = self.posterior
        names: list[str] = []
        for site in self.sites:
            names.append(portable(site, names))
        latent = set(self.sites)
        if isinstance(posterior.target, ModelTarget):
            latent = {site.name for site in posterior.target.sites}
        verdict, summary = posterior.verdict, posterior.summary()
        record = {
            "format": FORMAT,
            "model": posterior.name,
            "ngvi": self.version,
            "verdict": {
                "level": verdict.level,
                "reasons": verdict.reasons,
                "advice": verdict.advice,
            },
            "diagnostics": asdict(posterior.diagnostics),
            "latent_sites": [
                name
                for name, site in zip(names, self.sites, strict=True)
                if site in latent
            ],
            "gaussian": {"names": posterior.coordinate_names} | self.gaussian,
            "summary": {
                "index": list(summary.index),
                "columns": list(summary.columns),
                "data": summary.to_numpy(),
            },
            "notes": self.notes,
        }
        return plain(record)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def named_arrays(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays among a model's arguments, each with a name.

    An argument is named by the model's signature; an array inside a container by the
    path to it, "data.x"; one of *args by its position, "args.0".
    """
    try:
        bound = dict(inspect.signature(model).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        bound = {"args": args, **kwargs}
    else:
        for parameter in inspect.signature(model).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                bound.update(bound.pop(parameter.name, {}))
    for path, leaf in jax.tree_util.tree_leaves_with_path(bound):
        if isinstance(leaf, np.ndarray | np.generic | jax.Array):
            name = ".".join(jax.tree_util.keystr((k,), simple=True) for k in path)
            array = storable(leaf)
            if array is not None:
                yield name, array


def archive(posterior: Posterior, *, predictive: bool, prior: bool) -> Archive:
    """Everything about a posterior as labelled arrays.

    Args:
        posterior: of a NumPyro model, or of a plain log density; the latter has no
            groups beyond posterior, sample_stats and fit_history.
        predictive: also posterior_predictive and log_likelihood.
        prior: also prior and prior_predictive.

    Returns:
        The archive; its record says in "notes" what was asked for and cannot be had.
    """
    exporter = _Exporter(posterior)
    exporter.fit()
    target = posterior.target
    away = ""
    if posterior.streamed:
        away = "were read in batches and are not kept"
    elif not all(array.is_fully_addressable for array in posterior.data.arrays):
        away = "are spread over several processes"
    if isinstance(target, ModelTarget) and away:
        exporter.notes.append(
            "observed_data, posterior_predictive and log_likelihood are left out: the "
            f"data {away}."
        )
    elif isinstance(target, ModelTarget):
        if predictive:
            exporter.predictive(target)
        if prior:
            exporter.prior(target)
        exporter.data(target)
    elif prior:
        exporter.notes.append(
            "prior is left out: a plain log density does not say what its prior is."
        )
    return Archive(exporter.groups, exporter.record())
