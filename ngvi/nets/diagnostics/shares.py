"""Where the information is: KL(q ‖ prior), layer by layer.

For a prior of independent weights and q with the marginals q_l of its layers,

    KL(q ‖ p) = Σ_l KL(q_l ‖ p_l) + KL(q ‖ Π_l q_l),

and the last is what the layers share: zero where q is block-diagonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.fisher.layout import Layout
from ngvi.linalg import BlockOperators, Diagonal, PositiveDefinite
from ngvi.linalg.batching import diagonal_blocks, split
from ngvi.nets.diagnostics.pruning import signal_to_noise
from ngvi.nets.posterior import WeightPosterior

if TYPE_CHECKING:
    from pandas import DataFrame


def shares(posterior: WeightPosterior) -> DataFrame:
    """The nats of every layer, and how well its weights are known.

    `print(ngvi.terminal.table.text_table(shares(posterior)))` sets it in columns.

    Args:
        posterior: of the weights. A structure that is neither diagonal nor in blocks of
            layers is made dense: P² numbers.

    Returns:
        A row for each layer, for leaves in no layer, then "between layers" and "noise"
        where there are such; columns "weights", their number; "kl", in nats; "share",
        its fraction of the whole; "kl/weight"; "snr", the median of |m|/σ.
    """
    import pandas as pd

    prior = posterior.prior
    layout = prior.layout
    variances = posterior.precision.inverse_diagonal()
    squares = variances + prior.departure(posterior.mean) ** 2
    nats = [
        float(((delta * square).sum() - size - jnp.log(delta).sum() + volume) / 2)
        for delta, square, size, volume in zip(
            split(prior.vector, layout.sizes),
            split(squares, layout.sizes),
            layout.sizes,
            _log_volumes(posterior.precision, layout.sizes),
            strict=True,
        )
    ]
    snr = split(layout.vector(signal_to_noise(posterior)), layout.sizes)
    names, weights = _names(layout), list(layout.sizes)
    medians = [float(jnp.median(each)) for each in snr]
    others = {}
    if not isinstance(posterior.precision, BlockOperators | Diagonal):
        of_weights = float(prior.kl(posterior.mean, posterior.precision))
        others["between layers"] = of_weights - sum(nats)
    if posterior.noise is not None:
        others["noise"] = float(posterior.noise.kl())
    kl = np.array([*nats, *others.values()])
    counts = np.array([*weights, *(0 for _ in others)])
    each = kl / np.where(counts > 0, counts, np.nan)
    return pd.DataFrame(
        {
            "weights": counts,
            "kl": kl,
            "share": kl / kl.sum(),
            "kl/weight": each,
            "snr": [*medians, *(np.nan for _ in others)],
        },
        index=[*names, *others],
    )


def _log_volumes(
    precision: PositiveDefinite, sizes: tuple[int, ...]
) -> list[Float[Array, ""]]:
    """−log det of the covariance of every part."""
    if isinstance(precision, BlockOperators) and precision.sizes == sizes:
        return [block.logdet() for block in precision.blocks]
    if isinstance(precision, Diagonal):
        return [jnp.log(part).sum() for part in split(precision.diagonal(), sizes)]
    blocks = diagonal_blocks(precision.inverse_dense(), sizes)
    return [-jnp.linalg.slogdet(block)[1] for block in blocks]


def _names(layout: Layout) -> list[str]:
    """Of the layers, and of the leaves in none."""
    numbered = jax.tree.unflatten(layout.treedef, range(len(layout.shapes)))
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(numbered)
    ]
    layers = [layer.name for layer in layout.layers]
    return [*layers, *(paths[i] for i in layout.rest)]
