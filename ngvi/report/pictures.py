"""The sections of a report that are pictures, with the sentences that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.names import scalar_names
from ngvi.report import check_plots, markup, plots, weight_plots
from ngvi.report.canvas import inline_svg
from ngvi.report.scalars import (
    draws_of,
    finite,
    most_correlated,
    numeric_sites,
    scalars,
    site_sizes,
)
from ngvi.report.tail import (
    effective_draws,
    fit_tail,
    khat_threshold,
    pointwise_khat,
)
from ngvi.report.view import Archive, group, log_weights, log_weights_of_draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

MOST_MARGINALS = 24
MOST_CHECKS = 4
# Draws times observations beyond which leaving out each in turn takes too long.
MOST_POINTWISE = 4_000_000


class Pictures:
    """Draws the pictures of one page, or leaves them out where matplotlib is missing.

    Attributes:
        available: Whether matplotlib can be imported.
    """

    def __init__(self) -> None:
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError:
            self.available = False
        else:
            self.available = True
        self._count = 0

    def draw(self, label: str, plot: Callable[..., Figure], *args: Any) -> str:
        """Return ``plot(*args)`` as an inline SVG; nothing without matplotlib.

        Args:
            label: What the picture shows, for people who do not see it.
            plot: One of the functions that return a figure.
            *args: Its arguments.
        """
        if not self.available:
            return ""
        self._count += 1
        return inline_svg(plot(*args), label, f"p{self._count}")


def convergence(archive: Archive, pictures: Pictures) -> str:
    """Return the traces of the ELBO and of the Fisher length."""
    title, history = "Convergence", group(archive, "fit_history")
    if history is None:
        return markup.left_out(title, "the archive holds no history of the fit.")
    if not pictures.available:
        return ""
    elbo = pictures.draw("ELBO by iteration", plots.elbo_trace, history)
    length = pictures.draw(
        "Fisher length by iteration", plots.fisher_length_trace, history
    )
    text = (
        "<p>The ELBO should level off, and the Fisher length, the size of the next "
        "step in units of the posterior's own uncertainty, should fall.</p>"
    )
    figures = markup.grid("two", [markup.figure(elbo), markup.figure(length)])
    return markup.section(title, text, figures)


def marginals(archive: Archive, pictures: Pictures) -> str:
    """Return the distributions of the single quantities."""
    title, posterior = "Marginals", group(archive, "posterior")
    if posterior is None:
        return markup.left_out(title, "the archive holds no posterior draws.")
    sites = numeric_sites(posterior)
    if not sites:
        return markup.left_out(title, "no site of the posterior holds real numbers.")
    if not pictures.available:
        return ""
    sizes = site_sizes(posterior, sites)
    total = sum(sizes.values())
    if total > MOST_MARGINALS:
        # Small sites first: one long vector must not crowd out the global parameters.
        sites.sort(key=lambda site: sizes[site])
    prior = group(archive, "prior")
    comparable = [s for s in sites if prior is not None and _same(prior, posterior, s)]
    before = dict(scalars(prior, comparable)) if prior is not None else {}
    figures = []
    for name, draws in islice(scalars(posterior, sites), MOST_MARGINALS):
        svg = pictures.draw(
            f"Distribution of {name}", plots.marginal, draws, before.get(name)
        )
        figures.append(markup.figure(svg, markup.name(name)))
    text = "The dot is the median, the bar below it the central 90%."
    if before:
        text += " The grey outline is the prior."
    note = ""
    if total > MOST_MARGINALS:
        note = (
            f'<p class="note">{MOST_MARGINALS} of {total:,d} quantities, those of '
            "the smallest sites first.</p>"
        )
    return markup.section(title, f"<p>{text}</p>", markup.grid("small", figures), note)


def pairs(archive: Archive, pictures: Pictures) -> str:
    """Return the pair plot of the most correlated quantities."""
    title, posterior = "Strongest correlations", group(archive, "posterior")
    if posterior is None:
        return markup.left_out(title, "the archive holds no posterior draws.")
    latent = archive.record.get("latent_sites")
    sites = numeric_sites(posterior, latent or None)
    chosen, strongest = most_correlated(posterior, sites)
    if strongest is None:
        return markup.left_out(
            title, "there are not two latent quantities that vary and can be compared."
        )
    first, second, correlation = strongest
    text = (
        f"<p>{markup.name(first)} and {markup.name(second)} have correlation "
        f"{markup.number(correlation, '.2f')}, the strongest among the latent "
        "quantities.</p>"
    )
    svg = pictures.draw("Pairs of quantities", plots.pair_plot, chosen)
    return markup.section(title, text, markup.figure(svg, kind="card pairs"))


def predictive_checks(archive: Archive, pictures: Pictures) -> str:
    """Return a check of each observed site against replicated data."""
    title = "Posterior predictive check"
    observed = group(archive, "observed_data")
    replicated = group(archive, "posterior_predictive")
    if replicated is None:
        return markup.left_out(
            title, "the archive holds no draws from the posterior predictive."
        )
    if observed is None:
        return markup.left_out(title, "the archive holds no observed data.")
    in_both = numeric_sites(replicated, numeric_sites(observed))
    if not in_both:
        return markup.left_out(title, "no observed site was also replicated.")
    figures, notes = [], []
    for site in in_both[:MOST_CHECKS]:
        try:
            check = check_plots.compare(
                observed[site].to_numpy(), draws_of(replicated[site])
            )
        except ValueError as error:
            notes.append(f"{markup.name(site)} is left out: {escape(str(error))}.")
            continue
        caption = f"{markup.name(site)} &ensp;{check_plots.EXPLAIN[check.kind]}"
        if check.kind != "binary":
            caption += (
                f" {check.covered:.0%} of {check.observed.size:,d} observations lie "
                "within their own 90% interval."
            )
        svg = pictures.draw(
            f"Observed and replicated {site}", check_plots.predictive_check, check
        )
        if svg:
            figures.append(markup.figure(svg, caption))
        else:
            notes.append(caption)
    if hidden := in_both[MOST_CHECKS:]:
        notes.append(f"Not shown: {', '.join(map(markup.name, hidden))}.")
    text = "<p>Data drawn from the fitted model should look like the data observed.</p>"
    lines = "".join(f'<p class="note">{note}</p>' for note in notes)
    return markup.section(title, text, markup.grid("two", figures), lines)


def weights(archive: Archive, pictures: Pictures) -> str:
    """Return what the importance weights say about the approximation."""
    title, log_weight = "Importance weights", log_weights(archive)
    if log_weight is None or finite(log_weight).size < 2:
        return markup.left_out(title, "the archive holds no importance weights.")
    usable = finite(log_weight)
    size = usable.size
    largest = 1.0 / float(np.exp(usable - usable.max()).sum())
    text = (
        "The weight of a draw is the posterior density over that of the fit; equal "
        f"weights would mean an exact fit. The effective number of the {size:,d} "
        f"weighted draws is {markup.number(effective_draws(usable), ',.0f')}, and the "
        f"largest weight is {largest:.1%} of the total."
    )
    if lost := log_weight.size - size:
        text += f" {lost:,d} weights are not finite and are left out."
    tail = fit_tail(usable)
    ordered = pictures.draw("Sorted weights", weight_plots.sorted_weights, usable)
    figures = [markup.figure(ordered, "The flatter this line, the better the fit.")]
    note = ""
    if tail is None:
        note = '<p class="note">Too few distinct weights to fit their tail.</p>'
    else:
        svg = pictures.draw("Tail of the weights", weight_plots.weight_tail, tail, size)
        caption = (
            "The dashed curve is the heaviest tail that this number of draws can make "
            "up for; the fit should lie below it."
        )
        figures.append(markup.figure(svg, caption))
    body = [f"<p>{text}</p>", markup.grid("two", figures), note]
    return markup.section(title, *body, _leave_one_out(archive, pictures))


def _leave_one_out(archive: Archive, pictures: Pictures) -> str:
    """Return k-hat of leaving out each observation, site by site."""
    likelihood = group(archive, "log_likelihood")
    log_weight = log_weights_of_draws(archive)
    if likelihood is None or log_weight is None:
        return ""
    parts = ["<h3>Leaving out one observation</h3>"]
    limit = khat_threshold(log_weight.size)
    for site in numeric_sites(likelihood)[:MOST_CHECKS]:
        values = draws_of(likelihood[site])
        shape = values.shape[1:]
        if values.shape[0] != log_weight.size or values.size > MOST_POINTWISE:
            why = (
                "too many observations to do so here"
                if values.size > MOST_POINTWISE
                else "its draws are not those of the weights"
            )
            parts.append(f'<p class="note">{markup.name(site)}: {why}.</p>')
            continue
        khat = pointwise_khat(log_weight, values.reshape(log_weight.size, -1))
        parts.append(f'<p class="note">{_pointwise_text(site, shape, khat, limit)}</p>')
        svg = pictures.draw(
            f"k-hat without each {site}", weight_plots.pointwise_k, khat, limit
        )
        parts.append(markup.grid("two", [markup.figure(svg)]))
    return "\n".join(parts)


def _pointwise_text(
    site: str, shape: Sequence[int], khat: np.ndarray, limit: float
) -> str:
    """Return how many observations cannot be left out by weighting alone."""
    known = np.isfinite(khat)
    if not known.any():
        return f"{markup.name(site)}: no tail of weights could be fitted."
    high = int((khat[known] > limit).sum())
    worst = int(np.nanargmax(khat))
    label = next(islice(scalar_names(site, shape), worst, None))
    count = f"{high:,d} of {khat.size:,d}"
    verdict = (
        f"k-hat is above {limit:.2f} for {count} observations of {markup.name(site)}, "
        "whose leave-one-out estimates are not reliable."
        if high
        else f"k-hat is at most {limit:.2f} for every observation of "
        f"{markup.name(site)}: leave-one-out estimates are reliable."
    )
    return f"{verdict} The largest is {khat[worst]:.2f}, at {markup.name(label)}."


def _same(prior: Dataset, posterior: Dataset, site: str) -> bool:
    """Say whether a site has the same elements in the prior as in the posterior."""
    if site not in numeric_sites(prior):
        return False
    return draws_of(prior[site]).shape[1:] == draws_of(posterior[site]).shape[1:]
