"""Tables: enough digits, straight columns, and a word about hidden rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngvi.terminal.table import (
    align_decimals,
    decimals_for,
    format_columns,
    text_table,
)

COLUMNS = ["mean", "sd", "q5", "median", "q95", "mcse"]


def frame(rows: dict[str, list[float]], columns: list[str] = COLUMNS) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def parse(text: str) -> dict[str, list[float]]:
    lines = [line.split() for line in text.splitlines()[1:]]
    return {name: [float(cell) for cell in cells] for name, *cells in lines}


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(1e-12, 1e12),
    spread=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5),
    z=st.floats(-50, 50),
)
def test_numbers_round_trip_to_the_digits_that_matter(scale, spread, z):
    rows = {}
    for i, part in enumerate(spread):
        sd = scale * part
        mean = z * sd
        quantiles = [mean - 1.6 * sd, mean, mean + 1.6 * sd]
        rows[f"x[{i}]"] = [mean, sd, *quantiles, sd / 40]
    for name, cells in parse(text_table(frame(rows))).items():
        expected = rows[name]
        sd = expected[1]
        # Two digits of the smallest sd: rounding moves nothing by over 5% of it; with
        # an exponent, the four digits shown are those of the number itself.
        for cell, value in zip(cells[:5], expected[:5], strict=True):
            assert abs(cell - value) <= 0.0501 * sd + 5.01e-4 * abs(value)
        assert math.isclose(cells[5], expected[5], rel_tol=0.51)


def test_digits_follow_the_sd():
    table = text_table(
        frame(
            {
                "mu": [4.3812, 3.2941, -0.812, 4.333, 9.901, 0.0741],
                "rate": [0.0200123, 1.04e-4, 0.01983, 0.02, 0.0202, 2.2e-6],
                "big": [1e9, 1e8, 8.4e8, 1e9, 1.2e9, 3e6],
            }
        )
    )
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == COLUMNS
    assert lines[1] == ["mu", "4.38", "3.29", "-0.81", "4.33", "9.90", "0.074"]
    assert lines[2][:3] == ["rate", "0.020012", "0.000104"]
    assert float(lines[3][1]) == 1e9 and "e" in lines[3][1]


def test_rows_of_a_site_share_their_decimals():
    rows = {f"theta[{i}]": [1.0, sd, 0, 1, 2, 0.1] for i, sd in enumerate([0.94, 9.8])}
    means = format_columns(frame(rows))[0]
    assert means == ["1.00", "1.00"]


@pytest.mark.parametrize(
    ("scales", "digits", "expected"),
    [
        ([3.3], 3, 2),
        ([0.5, 2.0], 3, 2),
        ([0.01, 10.0], 3, 3),
        ([330.0], 3, 0),
        ([330000.0], 3, 0),
        ([0.074], 2, 3),
        ([0.0, math.nan, math.inf], 3, None),
        ([math.nan, 3.3], 3, 2),
    ],
)
def test_decimals(scales, digits, expected):
    assert decimals_for(scales, digits) == expected


def test_decimal_points_stand_in_line():
    rows = {
        "mu": [4.38, 3.29, -0.81, 4.33, 9.9, 0.074],
        "theta[0]": [0.2931, 0.948, -1.235, 0.285, 1.912, 0.021],
        "n": [12345.0, 400.0, 11000, 12000, 13000, 9.0],
    }
    table = text_table(frame(rows))
    cells = align_decimals(format_columns(frame(rows))[0])
    ends = [cell.find(".") - len(cell) for cell in cells[:2]]
    assert ends[0] == ends[1]
    assert len(cells[2]) - len("12345") == len(".293")
    assert max(map(len, table.splitlines())) < 80


def test_missing_and_constant_values():
    rows = {
        "nothing": [math.nan] * 6,
        "endless": [math.inf, math.inf, -math.inf, 0, math.inf, math.nan],
        "constant": [3.0, 0.0, 3.0, 3.0, 3.0, 0.0],
    }
    parsed = parse(text_table(frame(rows)))
    np.testing.assert_equal(parsed["nothing"], [math.nan] * 6)
    assert parsed["endless"][:3] == [math.inf, math.inf, -math.inf]
    assert parsed["constant"] == rows["constant"]


def test_other_columns_and_objects():
    table = text_table(
        pd.DataFrame({"mean": [1.0], "khat": [0.7123456], "note": ["x"]}, index=["a"])
    )
    assert table.splitlines()[1].split() == ["a", "1", "0.7123", "nan"]


def test_long_tables_are_cut_in_the_middle():
    rows = {f"x[{i}]": [float(i), 1.0, 0, 1, 2, 0.1] for i in range(500)}
    lines = text_table(frame(rows), max_rows=20).splitlines()
    assert len(lines) == 22
    assert [line.split()[0] for line in lines[1:4]] == ["x[0]", "x[1]", "x[2]"]
    assert lines[-1].split()[0] == "x[499]"
    note = next(line for line in lines if "hidden" in line)
    assert "480 rows hidden" in note and "summary()" in note and "500" in note
    assert len(text_table(frame(rows), max_rows=None).splitlines()) == 501
    assert "hidden" not in text_table(frame(rows), max_rows=500)


@pytest.mark.parametrize("max_rows", [1, 2, 3])
def test_short_limits(max_rows):
    rows = {f"x[{i}]": [float(i), 1.0, 0, 1, 2, 0.1] for i in range(9)}
    lines = text_table(frame(rows), max_rows=max_rows).splitlines()
    assert len(lines) == max_rows + 2
    assert f"{9 - max_rows} rows hidden" in "\n".join(lines)


def test_long_names_keep_both_ends():
    name = "a_site_with_a_very_long_name_indeed_" * 2 + "[12]"
    line = text_table(frame({name: [1.0, 1, 0, 1, 2, 0.1]})).splitlines()[1]
    shown = line.split()[0]
    assert len(shown) <= 40
    assert shown.startswith("a_site") and shown.endswith("[12]")


def test_empty_frame():
    assert "no quantities" in text_table(frame({}))


def test_only_ascii():
    rows = {f"x[{i}]": [float(-i), 1.0, 0, 1, 2, 0.1] for i in range(100)}
    text_table(frame(rows)).encode("ascii")
