"""What the pages on theory claim, as their code finds it."""

from pathlib import Path

import numpy as np

from tests.test_docstrings import run_guide

PICTURES = Path(__file__).parents[1] / "docs" / "theory"


def check_picture(folder, name):
    """The page's code draws it, and the repository has it, in few bytes."""
    assert (folder / name).stat().st_size > 5_000
    assert 5_000 < (PICTURES / name).stat().st_size < 40_000


def test_natural_gradient_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, names = run_guide("theory/natural_gradient.md")
    for same in ("kl_hessian", "score_covariance"):
        np.testing.assert_allclose(names[same], names["fisher"], atol=1e-12)
    np.testing.assert_allclose(names["in_mean"], names["natural"], rtol=1e-12)
    # The lowest point of a ball of 1e-6 nats, searched for, is the derived step.
    searched, derived = np.asarray(names["searched"]), np.asarray(names["derived"])
    np.testing.assert_allclose(searched, derived, atol=0.01 * np.abs(derived).max())
    in_sigma, in_lambda, *natural = (np.asarray(p) for p in names["paths"].values())
    np.testing.assert_allclose(*natural, atol=0.02)
    assert np.abs(in_sigma - in_lambda).max() > 0.5
    check_picture(tmp_path, "natural_gradient.png")


def test_mirror_descent_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, names = run_guide("theory/mirror_descent.md")
    np.testing.assert_allclose(names["at_minimum"], 0, atol=1e-12)
    posterior, rule = names["posterior"], names["by_rule"]
    np.testing.assert_allclose(posterior.concentration, rule.concentration)
    np.testing.assert_allclose(posterior.rate, rule.rate)
    whole, beside = names["whole"].natural_params, names["beside_prior"]
    np.testing.assert_allclose(whole, beside, rtol=1e-12)
    assert all(lengths[-1] < 1e-3 for lengths, _ in names["runs"].values())
    after = {name: lengths[5] for name, (lengths, _) in names["runs"].items()}
    assert after["exp x"] > 10 * max(v for k, v in after.items() if k != "exp x")
    check_picture(tmp_path, "mirror_descent.png")


def test_estimates_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, names = run_guide("theory/estimates.md")
    score, *others = names["of_a_quadratic"]
    assert score > 0.01 and max(others) < 1e-12
    for errors in names["matched"].values():
        assert np.all(np.diff(errors) < 0)
    score, _, gradients, hessians = names["matched"][256]
    assert score / gradients > 6 and score / hessians > 25
    gamma = names["gamma"]
    np.testing.assert_allclose([gamma.concentration, gamma.rate], [7, 2.5], rtol=1e-9)
    check_picture(tmp_path, "estimates.png")


def test_nets_and_search_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, names = run_guide("theory/nets_and_search.md")
    after, last = names["after"], names["path"][-1][0]
    np.testing.assert_allclose(after.mean, names["mean_by_hand"], rtol=1e-12)
    root = after.precision.inverse_root
    np.testing.assert_allclose(root, names["root_by_hand"], rtol=1e-12)
    # Only the order of the values counts.
    np.testing.assert_array_equal(last.mean, names["same"][-1][0].mean)
    np.testing.assert_allclose(last.mean, 1, atol=0.01)
    nets, precision = names["nets"], names["precision"]
    for exact in ("full", "noisy K-FAC"):
        np.testing.assert_allclose(nets[exact].mean, names["mean"], rtol=1e-9)
        dense = nets[exact].precision.dense()
        np.testing.assert_allclose(dense, precision, rtol=1e-9)
    found = nets["VOGN"].precision.dense()
    assert found[0, 1] == 0
    np.testing.assert_allclose(np.diag(found), np.diag(precision), rtol=0.5)
    check_picture(tmp_path, "nets_and_search.png")
