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
    picture: Float[Array, "batch *places channels"],
    size: Sequence[int],
    params: Mapping[str, Any],
) -> Float[Array, "positions rows"]:
    """Rows a_t with conv(picture, W)_t = Wᵀ a_t: the kernel's places, then channels.

    One strided slice per place of the kernel: numbers are copied, never multiplied, so
    that no precision is lost where products are rounded.

    Args:
        picture: the convolution's left side.
        size: of the kernel.
        params: of the equation: strides, padding and dilations.
    """
    edges = [
        (low, high, step - 1)
        for (low, high), step in zip(
            params["padding"], params["lhs_dilation"], strict=True
        )
    ]
    zero = jnp.zeros((), picture.dtype)
    padded = lax.pad(picture, zero, [(0, 0, 0), *edges, (0, 0, 0)])
    batch, *whole, channels = padded.shape
    dilation, strides = params["rhs_dilation"], params["window_strides"]
    # How far the first place of the kernel can go.
    ends = [
        length - step * (width - 1)
        for length, step, width in zip(whole, dilation, size, strict=True)
    ]

    def under(place: tuple[int, ...]) -> Array:
        starts = [step * index for step, index in zip(dilation, place, strict=True)]
        stops = [start + end for start, end in zip(starts, ends, strict=True)]
        first, last = (0, *starts, 0), (batch, *stops, channels)
        return lax.slice(padded, first, last, (1, *strides, 1))

    places = itertools.product(*map(range, size))
    rows = jnp.concatenate([under(place) for place in places], axis=-1)
    return rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
