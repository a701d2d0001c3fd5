"""Chunks of draws add up to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from ngvi.bayes import replicates
from ngvi.bayes.replicates import kept_draws, log_likelihoods, replicated


@pytest.mark.parametrize("chunk", [8, 8 * 7, 8 * 30])
def test_chunks_give_what_one_pass_gives(schools, monkeypatch, chunk):
    target, data = schools.target, schools.data
    sites = schools._summary_draws[2]
    latent = {site.name: sites[site.name][:30] for site in target.sites}
    whole = log_likelihoods(target, data, latent, ("y",), 8)["y"]
    monkeypatch.setattr(replicates, "CHUNK_NUMBERS", chunk)
    parts = log_likelihoods(target, data, latent, ("y",), 8)["y"]
    np.testing.assert_allclose(parts, whole)

    # Thirty times the same draw: every chunk has noise of its own.
    same = {name: np.repeat(value[:1], 30, axis=0) for name, value in latent.items()}
    y = replicated(target, data, same, ("y",), 8, seed=0)["y"]
    assert y.shape == (30, 8)
    assert np.unique(y).size == y.size


def test_kept_draws_are_even_and_few_enough():
    assert kept_draws(2048, 100).size == 2048
    kept = kept_draws(2048, 100_000)
    assert kept.size * 100_000 <= replicates.MOST_NUMBERS < 2 * kept.size * 100_000
    assert np.unique(np.diff(kept)).size == 1
    assert kept_draws(2048, 10**9).size == 1
