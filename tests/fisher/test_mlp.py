"""The perceptron: its outputs, its start, and equal ones are one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import MLP


def test_outputs_written_out() -> None:
    net = MLP((3, 5, 2), jax.nn.relu)
    (first, last), x = net.init(jax.random.key(0)), np.ones((4, 3))
    assert first["w"].shape == (3, 5) and last["b"].shape == (2,)
    hidden = np.maximum(x @ first["w"] + first["b"], 0)
    np.testing.assert_allclose(net([first, last], x), hidden @ last["w"] + last["b"])


def test_weights_start_with_variance_one_over_inputs() -> None:
    (layer,) = MLP((100, 400)).init(jax.random.key(1), jnp.float32)
    assert layer["w"].dtype == jnp.float32
    deviation = np.asarray(layer["w"]).std()
    np.testing.assert_allclose(deviation, 0.1, rtol=5 / np.sqrt(2 * 40_000))


def test_equal_ones_are_equal_and_bad_sizes_are_refused() -> None:
    assert MLP((3, 2)) == MLP((3, 2)) and hash(MLP((3, 2))) == hash(MLP((3, 2)))
    for sizes in [(3,), (3, 0)]:
        with pytest.raises(ValueError, match="sizes must be"):
            MLP(sizes)
