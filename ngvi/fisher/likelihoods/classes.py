"""Likelihoods of classes 0, …, C − 1: unordered (categorical) and ordered (ordinal).

Categorical, f = logits (*e, C), p = softmax(f):

    Λ = diag p − p pᵀ,   S = diag √p − p √pᵀ, with C − 1 columns in another basis.

Ordinal (cumulative logits), with cut points c₀ < … < c_{C−2} and a predictor η:
P(y ≤ k) = σ(z_k), z_k = c_k − η. With π the classes' probabilities and s = σ'(z),

    ∂π_k/∂z_k = s_k,  ∂π_{k+1}/∂z_k = −s_k,   S_z = (∂π/∂z)ᵀ diag(π)^{−½},

and S = (∂z/∂f)ᵀ S_z. Both have a null direction: the same number added to all logits,
or to η and all cut points. Everything is made of logarithms of probabilities, so that
S stays finite where probabilities vanish.

Source: McCullagh (1980), Regression models for ordinal data.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.domains import whole_numbers
from ngvi.families.parameters import family as record
from ngvi.families.parameters import is_concrete
from ngvi.families.special import expm1_minus
from ngvi.families.special.logistic import log1mexp, softplus
from ngvi.families.special.softmax import log_softmax, softmax, softmax_kl
from ngvi.fisher.likelihoods.base import (
    Likelihood,
    block_columns,
    check_floating,
    check_support,
    like,
)

Logits = Float[Array, "*e C"]


@record
class Categorical(Likelihood):
    """Classes `y (*e)` ∈ {0, …, C − 1} with logits `f (*e, C)`.

    Example:
        >>> import jax.numpy as jnp
        >>> f, v = jnp.zeros(2), jnp.array([1.0, 0.0])
        >>> Categorical().fisher_mv(f, v).tolist()
        [0.25, -0.25]
    """

    natural: ClassVar[bool] = True

    def log_prob(self, f: Logits, y: Array) -> Float[Array, ""]:
        return _chosen(log_softmax(f), y)

    def gradient(self, f: Logits, y: Array) -> Logits:
        # In its closed form, without the gathers and scatters of an index.
        p = softmax(f)
        chosen = jnp.arange(p.shape[-1]) == jnp.asarray(y).astype(int)[..., None]
        return jnp.where(chosen, 1 - p, -p)

    def sample(self, key: Key[Array, ""], f: Logits) -> Array:
        return jax.random.categorical(key, f)

    def mean(self, f: Logits) -> Logits:
        return softmax(f)

    def fisher_mv(self, f: Logits, v: Logits) -> Logits:
        # p (v − p·v) is the derivative of softmax.
        return jax.jvp(softmax, (f,), (v,))[1]

    def root_columns(self, f: Logits) -> Float[Array, "k *e C"]:
        p = softmax(f)
        classes = jnp.arange(p.shape[-1])
        top = classes == jnp.argmax(f, -1, keepdims=True)
        # One minus a probability that rounds to one is the sum of the others.
        others = jnp.where(top, 0, p).sum(-1, keepdims=True)
        complement = jnp.where(top, others, 1 - p)
        # S √p = 0: reflected so that √p becomes the last axis, S has a column less,
        # √p_k (eₖ − pᵢ/(1 + √p_last)) and −√(p_k p_last) in the last row.
        last = jnp.sqrt(p[..., -1:])
        own = classes[:-1, None] == classes
        here = complement + p * last / (1 + last)
        rows = jnp.where(own, here[..., None, :], -(p / (1 + last))[..., None, :])
        rows = rows.at[..., -1].set(-last)
        return block_columns(jnp.sqrt(p[..., :-1, None]) * rows, f.shape[:-1])

    def kl(self, f: Logits, g: Logits) -> Float[Array, ""]:
        return softmax_kl(f, g).sum()

    def check_outputs(self, outputs: Any) -> None:
        check_floating(self._name, "the logits", outputs)
        shape = tuple(outputs.shape)
        if len(shape) < 2 or shape[-1] < 2:
            raise ValueError(
                f"{self._name}: the logits need a last axis of two classes or more, "
                f"got shape {shape}; two classes with one logit are "
                '"bernoulli"'
            )

    def check_labels(self, outputs: Any, y: Array) -> None:
        *shape, classes = outputs.shape
        if jnp.shape(y) == (*shape, classes):
            raise ValueError(
                f"{self._name}: labels are numbers of classes, shape {tuple(shape)}, "
                f"got shape {jnp.shape(y)}: of one-hot labels take y.argmax(-1)"
            )
        check_support(self._name, whole_numbers(0, classes - 1), y, tuple(shape))


@record
class Ordinal(Likelihood):
    """Ordered classes y (*e) ∈ {0, …, C − 1} by cumulative logits.

    Args:
        cuts: increasing cut points, shape (C − 1,), f being the predictor η (*e); None
            where they are learned: the outputs are then the pair (η (*e), cuts
            (*e, C − 1)). Cut points out of order make the log probability NaN.
    """

    cuts: Any = None

    def __post_init__(self) -> None:
        if self.cuts is None or not is_concrete(self.cuts):
            return
        cuts = jnp.asarray(self.cuts)
        if cuts.ndim != 1 or not cuts.size or not bool((jnp.diff(cuts) > 0).all()):
            raise ValueError(
                f"Ordinal: cuts must be a vector of increasing numbers, got {cuts}"
            )

    def _predictors(self, f: Any) -> Float[Array, "*e C-1"]:
        """z."""
        eta, cuts = f if self.cuts is None else (f, like(self.cuts, f))
        return cuts - eta[..., None]

    def _log_probs(self, f: Any) -> Logits:
        """log π."""
        z = self._predictors(f)
        below, above = z[..., :-1], z[..., 1:]
        inner = log1mexp(below - above) - softplus(-above) - softplus(below)
        first, last = -softplus(-z[..., :1]), -softplus(z[..., -1:])
        return jnp.concatenate([first, inner, last], -1)

    def log_prob(self, f: Any, y: Array) -> Float[Array, ""]:
        return _chosen(self._log_probs(f), y)

    def sample(self, key: Key[Array, ""], f: Any) -> Array:
        return jax.random.categorical(key, self._log_probs(f))

    def mean(self, f: Any) -> Logits:
        return jnp.exp(self._log_probs(f))

    def _root(self, f: Any) -> Float[Array, "*e C-1 C"]:
        """S_z."""
        z, half = self._predictors(f), self._log_probs(f) / 2
        log_slope = -softplus(-z) - softplus(z)
        up = jnp.exp(log_slope - half[..., :-1])
        down = jnp.exp(log_slope - half[..., 1:])
        rows = jnp.arange(z.shape[-1])[:, None]
        columns = jnp.arange(half.shape[-1])
        raised = jnp.where(rows == columns, up[..., None], 0)
        return raised - jnp.where(rows + 1 == columns, down[..., None], 0)

    def fisher_mv(self, f: Any, v: Any) -> Any:
        root = self._root(f)
        if self.cuts is not None:
            return (root.sum(-2) ** 2).sum(-1) * v
        change = v[1] - v[0][..., None]
        product = jnp.einsum("...jk,...ik,...i->...j", root, root, change)
        return _as(f, -product.sum(-1), product)

    def root_columns(self, f: Any) -> Any:
        root = self._root(f)
        if self.cuts is not None:
            deviation = jnp.sqrt((root.sum(-2) ** 2).sum(-1))
            return block_columns(deviation[..., None], f.shape)
        event = f[0].shape
        columns = jnp.moveaxis(root, -1, -2)
        predictor = block_columns(-columns.sum(-1), event)
        return _as(f, predictor, block_columns(columns, event))

    def kl(self, f: Any, g: Any) -> Float[Array, ""]:
        log_p, log_q = self._log_probs(f), self._log_probs(g)
        # Σ p (q/p − 1 − log q/p): no term is negative.
        return (jnp.exp(log_p) * expm1_minus(log_q - log_p)).sum()

    def check_outputs(self, outputs: Any) -> None:
        if self.cuts is not None:
            check_floating(self._name, "the predictor", outputs)
            return
        if not isinstance(outputs, tuple | list) or len(outputs) != 2:
            raise ValueError(
                f"{self._name}: without fixed cuts the outputs must be a pair "
                "(predictor, cuts)"
            )
        eta, cuts = outputs
        check_floating(self._name, "the predictor", eta)
        check_floating(self._name, "the cuts", cuts)
        if tuple(cuts.shape[:-1]) != tuple(eta.shape) or cuts.shape[-1] == 0:
            raise ValueError(
                f"{self._name}: the cuts must have the predictor's shape and one more "
                f"axis, got {tuple(eta.shape)} and {tuple(cuts.shape)}"
            )

    def check_labels(self, outputs: Any, y: Array) -> None:
        eta = outputs if self.cuts is not None else outputs[0]
        last = jnp.shape(outputs[1] if self.cuts is None else self.cuts)[-1]
        check_support(self._name, whole_numbers(0, last), y, tuple(eta.shape))


def _chosen(log_probs: Logits, y: Array) -> Float[Array, ""]:
    """The sum of the log probabilities of the classes y."""
    index = jnp.asarray(y).astype(int)[..., None]
    return jnp.take_along_axis(log_probs, index, -1).sum()


def _as(f: Any, *parts: Array) -> Any:
    """Parts in the container that f is."""
    return jax.tree.unflatten(jax.tree.structure(f), parts)
