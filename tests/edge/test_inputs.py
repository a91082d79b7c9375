"""Inputs that nobody has trained on."""

from __future__ import annotations

import numpy as np

from edge.inputs import InputCheck
from tests.edge.examples import engine_contract, solder_contract

NAN = np.nan


def test_out_of_range_unknown_context_and_nothing_at_all_are_uncertain() -> None:
    check = InputCheck(solder_contract())
    rows = np.array(
        [(200, 20, 120), (400.0001, 10, 200), (401, 20, 120), (NAN, NAN, 120), (NAN, NAN, NAN), (200, 20, 120)],
        np.float32,
    )
    contexts = np.array([1, 2, 1, 1, 1, 0])
    assert check.uncertain(rows, contexts).tolist() == [False, False, True, False, True, True]
    assert [check.name(n) for n in (0, 1, 2, 3, 99)] == [None, "alpha", "beta", None, None]


def test_a_window_is_uncertain_by_any_of_its_rows_and_empty_by_its_last() -> None:
    check = InputCheck(engine_contract())
    good = [(600, 300)] * 3
    windows = np.array([good, [(NAN, NAN), *good[1:]], [(9999, 300), *good[1:]], [*good[1:], (NAN, NAN)]], np.float32)
    assert check.uncertain(windows, np.zeros(4, np.int64)).tolist() == [False, False, True, True]
    assert check.name(0) is None


def test_a_computed_context_needs_its_features() -> None:
    contract = solder_contract(context={"kind": "computed", "features": ["height"], "centres": [[100.0], [150.0]]})
    check = InputCheck(contract)
    rows = np.array([(200, 20, 120), (200, 20, NAN)], np.float32)
    assert check.uncertain(rows, np.zeros(2, np.int64)).tolist() == [False, True]
