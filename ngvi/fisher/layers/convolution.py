"""The patches of a picture that a convolution's kernel lies over."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def patches(
    picture: Float[Array, "batch channels *places"],
    size: Sequence[int],
    params: Mapping[str, Any],
) -> Float[Array, "positions rows"]:
    """Rows a_t with conv(picture, W)_t = Wᵀ a_t, channel first, then the kernel's axes.

    One strided slice per place of the kernel: numbers are copied, never multiplied, so
    that no precision is lost where products are rounded.

    Args:
        picture: the convolution's left side.
        size: of the kernel.
        params: of the equation: strides, padding and dilations.
    """
    inside = [step - 1 for step in params["lhs_dilation"]]
    edges = [
        (low, high, gap)
        for (low, high), gap in zip(params["padding"], inside, strict=True)
    ]
    padded = lax.pad(picture, jnp.zeros((), picture.dtype), [(0, 0, 0)] * 2 + edges)
    dilation, strides = params["rhs_dilation"], params["window_strides"]
    reach = [step * (width - 1) for step, width in zip(dilation, size, strict=True)]
    stops = [whole - far for whole, far in zip(padded.shape[2:], reach, strict=True)]

    def under(place: tuple[int, ...]) -> Array:
        start = [step * index for step, index in zip(dilation, place, strict=True)]
        limit = [low + stop for low, stop in zip(start, stops, strict=True)]
        return lax.slice(
            padded, (0, 0, *start), (*padded.shape[:2], *limit), (1, 1, *strides)
        )

    found = [under(place) for place in itertools.product(*map(range, size))]
    stacked = jnp.stack(found, axis=-1)
    # (batch, channels, *positions, kernel) → (batch, *positions, channels, kernel)
    rows = picture.shape[1] * math.prod(size)
    return jnp.moveaxis(stacked, 1, -2).reshape(-1, rows)
