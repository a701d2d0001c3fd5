"""scikit-learn's checks that set n_components to one, which some models refuse."""

from __future__ import annotations

REFUSED = dict.fromkeys(
    (
        "check_dont_overwrite_attributes",
        "check_dont_overwrite_parameters",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
    ),
    "asks for one component",
)
