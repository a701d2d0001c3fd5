"""What docs/extending.md adds is found by the suites, and passes them."""

from __future__ import annotations

import importlib
import re

import jax
import numpy as np
import pytest

from tests.families import cases as families
from tests.families import test_divergences, test_draws, test_identities, test_shapes
from tests.linalg import cases as linalg
from tests.linalg import test_structures
from tests.test_docstrings import ROOT, run_guide

PAGE = (ROOT / "docs" / "extending.md").read_text()
FAMILY, STRUCTURE, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one file, as `ngvi.families` and `ngvi.linalg` have many."""

    def make(name, code):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "added.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module(name)

    return make


def one_example(test, **arguments):
    """A property test on one example."""
    test.hypothesis.inner_test(**arguments)


def test_a_family_is_found_and_passes(package):
    (case,) = families.discover(package("more_families", FAMILY))
    assert case.name == "HalfNormal"
    assert not families.having("cdf", [case]) and not families.having("mode", [case])
    one_example(test_identities.test_coordinates, case=case, seed=0)
    one_example(test_divergences.test_divergences, case=case, seed=0)
    for what in ("T", "Cov(T)", "entropy", "KL"):
        test_draws.test_averages_over_draws(case, what)
    test_draws.test_derivatives_through_draws(case)
    test_shapes.test_members_are_pytrees(case)


def test_a_structure_is_found_and_passes(package):
    (case,) = linalg.discover(package("more_linalg", FAMILY + STRUCTURE))
    assert case.name == "Exchangeable"
    for dim in (1, 4):
        one_example(test_structures.test_operator, case=case, dim=dim, seed=0)
        one_example(test_structures.test_roots, case=case, dim=dim, seed=0)
    test_structures.test_leading_axes_are_a_loop(case)


def test_a_structure_that_cannot_be_made_asks_for_a_row(package):
    code = (FAMILY + STRUCTURE).replace("from_dense", "nearest")
    with pytest.raises(NotImplementedError, match="Exchangeable needs a row"):
        linalg.discover(package("lacking_linalg", code))


def test_the_estimate_and_the_algorithms():
    *_, names = run_guide("extending.md")
    lengths = {row: float(length) for row, (_, length) in names["found"].items()}
    assert max(lengths.values()) < 1e-3, lengths
    gauss_newton, hessians, gradients, diagonal = (
        q for q, _ in names["found"].values()
    )
    # The same best Gaussian by either estimate, up to what few draws leave.
    sd = np.sqrt(hessians.variance)
    np.testing.assert_allclose(gradients.mean / sd, hessians.mean / sd, atol=0.01)
    # JᵀJ of this model is the Hessian but for residuals; and a mean field is narrower.
    np.testing.assert_allclose(np.sqrt(gauss_newton.variance), sd, rtol=0.05)
    assert (np.sqrt(diagonal.variance) < 0.7 * sd).all()
    gradient = names["gauss_newton"](names["residual"])(
        names["potential"], hessians, names["draws"]
    ).gradient
    z = hessians.place(names["draws"])
    expected = jax.vmap(jax.grad(names["potential"]))(z).mean(0)
    np.testing.assert_allclose(
        gradient.mean, hessians.precision.whiten_gradient(expected), atol=1e-10
    )
