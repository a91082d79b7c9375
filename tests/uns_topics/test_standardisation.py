"""Standardisation from sums; the expected numbers are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.contract import (
    ClassLabel,
    ComputedContext,
    Context,
    Contract,
    DeclaredContext,
    EventSample,
    Feature,
    Metric,
)
from uns_topics.standardisation import (
    MIN_DEVIATION,
    Moments,
    cells,
    class_weights,
    context_slots,
    fill_standardisation,
    pool,
    scale,
)
from uns_topics.tensors import Role, Tensor, TensorTable

NAN = float("nan")


def make_contract(context: Context | None = None) -> Contract:
    return Contract(
        federation="sums",
        features=(
            Feature(name="temperature", unit="degC", minimum=200, maximum=300),
            Feature(name="volume", unit="%", minimum=-10, maximum=10),
        ),
        context=context,
        label=ClassLabel(name="verdict", classes=("good", "bad"), positive="bad"),
        sample=EventSample(key="board"),
        metric=Metric.ROC_AUC,
    )


def rows(*values: tuple[float, float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_scaling_clips_to_the_range_first() -> None:
    scaled = scale(rows((250, 0), (200, -10), (350, 99), (-273, -11), (NAN, 5)), make_contract())
    assert scaled.dtype == np.float64
    assert scaled[:4].tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert math.isnan(scaled[4, 0])
    assert scaled[4, 1] == 0.75


def test_moments_of_four_numbers() -> None:
    # 0, 0.2, 0.4, 1.0: sum 1.6, squares 0 + 0.04 + 0.16 + 1 = 1.2; mean 0.4, variance 0.3 - 0.16 = 0.14
    values = rows((200, NAN), (220, NAN), (240, NAN), (300, 0))
    found = cells(values, np.zeros(4, np.int64), make_contract(), minimum=4)
    assert found.keys() == {0}
    assert found[0].keys() == {"temperature"}  # one volume is too few to be told
    moments = found[0]["temperature"]
    assert moments.n == 4
    assert moments.sum == pytest.approx(1.6)
    assert moments.sum_squares == pytest.approx(1.2)
    assert moments.mean == pytest.approx(0.4)
    assert moments.deviation == pytest.approx(math.sqrt(0.14))


def test_cells_by_slot_and_slot_0_pools_them_all() -> None:
    values = rows(*[(200, 0)] * 3, *[(300, 0)] * 2, *[(300, 5)] * 2)
    slots = np.array([1, 1, 1, 2, 2, 3, 3])
    found = cells(values, slots, make_contract(), minimum=3)
    assert found.keys() == {0, 1}
    assert found[0]["temperature"].n == 7
    assert found[0]["temperature"].mean == pytest.approx(4 / 7)
    assert found[1]["temperature"].mean == 0.0


def test_a_few_rows_don_t_follow_from_what_else_is_told() -> None:
    values = rows(*[(200, 0)] * 5, *[(250, 0)] * 3, *[(300, 0)] * 2)
    slots = np.array([1] * 5 + [2] * 3 + [3] * 2)
    assert cells(values[:8], slots[:8], make_contract(), minimum=3).keys() == {0, 1, 2}  # nothing is left over
    assert cells(values, slots, make_contract(), minimum=3).keys() == {0, 1}  # else the last two would be
    only_one = rows(*[(200, 0)] * 5, *[(300, NAN)] * 2)
    found = cells(only_one, np.array([1] * 5 + [3] * 2), make_contract(), minimum=3)
    assert found[0].keys() == {"temperature", "volume"}
    assert found[1].keys() == {"volume"}  # of which slot 3 has none


def test_fewer_than_ten_rows_are_never_told() -> None:
    assert cells(rows(*[(250, 0)] * 9), np.zeros(9, np.int64), make_contract()) == {}
    assert cells(rows(*[(250, 0)] * 10), np.zeros(10, np.int64), make_contract())[0]["volume"].n == 10


def moments(n: int, mean: float, deviation: float = 0.0) -> Moments:
    return Moments(n=n, sum=n * mean, sum_squares=n * (deviation**2 + mean**2))


def test_pooling_adds_the_sums() -> None:
    # 100 rows at 0.2 and 100 rows at 0.6: mean 0.4; variance within 0.01, between 0.04
    pooled = pool([{0: {"volume": moments(100, 0.2, 0.1)}}, {0: {"volume": moments(100, 0.6, 0.1)}}])
    assert pooled[0]["volume"].n == 200
    assert pooled[0]["volume"].mean == pytest.approx(0.4)
    assert pooled[0]["volume"].deviation == pytest.approx(math.sqrt(0.05))


def test_one_participant_weighs_at_most_half() -> None:
    parts = [{0: {"volume": moments(n, mean, 0.1)}} for n, mean in ((1_000_000, 0.9), (60, 0.1), (40, 0.1))]
    pooled = pool(parts)[0]["volume"]
    assert pooled.n == 200
    assert pooled.mean == pytest.approx(0.5)
    alone = pool(parts[:1])[0]["volume"]
    assert alone.n == 1_000_000


def test_a_quarter_s_cap_binds_by_the_others_rows() -> None:
    # others hold 300 rows; at most a quarter of the whole is 300 * 0.25 / 0.75 = 100
    parts = [{0: {"volume": moments(n, 0.5)}} for n in (900, 300)]
    assert pool(parts, cap=0.25)[0]["volume"].n == 100 + 300


def test_cells_that_only_one_has_are_kept() -> None:
    pooled = pool(
        [{0: {"volume": moments(10, 0.5)}, 3: {"volume": moments(10, 0.1)}}, {0: {"volume": moments(10, 0.5)}}]
    )
    assert pooled[3]["volume"].n == 10


def test_scaling_keeps_mean_and_deviation() -> None:
    less = moments(1000, 0.3, 0.2).scaled(0.1)
    assert less.n == 100
    assert less.mean == pytest.approx(0.3)
    assert less.deviation == pytest.approx(0.2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_moments_agree_with_numpy(values: list[float]) -> None:
    array = np.array(values)
    found = Moments(n=len(array), sum=float(array.sum()), sum_squares=float(np.square(array).sum()))
    assert found.mean == pytest.approx(array.mean(), abs=1e-12)
    assert found.deviation == pytest.approx(array.std(), abs=1e-7)


def table_for(contract: Contract) -> TensorTable:
    size = contract.slots * 2
    return TensorTable(
        tensors=tuple(
            Tensor(name=name, shape=(contract.slots, 2), role=Role.FROZEN, offset=i * size, file_offset=i * size * 4)
            for i, name in enumerate(("standardise.mean", "standardise.deviation"))
        )
    )


def test_tables_take_their_slot_else_slot_0_else_the_middle_of_the_range() -> None:
    contract = make_contract(DeclaredContext(name="product", values=("A", "B"), spare=1))
    table = table_for(contract)
    start = np.full(table.size, 7.0, np.float32)
    pooled = {0: {"temperature": moments(50, 0.3, 0.1)}, 2: {"temperature": moments(20, 0.8, 0.0)}}
    filled = fill_standardisation(start, table, contract, pooled)
    mean, deviation = table.view(filled, "standardise.mean"), table.view(filled, "standardise.deviation")
    np.testing.assert_allclose(mean, [[0.3, 0.5], [0.3, 0.5], [0.8, 0.5], [0.3, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(deviation[:, 0], [0.1, 0.1, MIN_DEVIATION, 0.1], rtol=1e-5)
    assert deviation[:, 1].tolist() == [0.25] * 4
    assert set(start.tolist()) == {7.0}  # a copy


def test_a_declared_context_is_taken_as_it_is_and_none_is_slot_0() -> None:
    declared = np.array([2, 0, 1])
    values = rows(*[(250, 0)] * 3)
    contract = make_contract(DeclaredContext(name="product", values=("A", "B")))
    assert context_slots(values, declared, contract).tolist() == [2, 0, 1]
    assert context_slots(values, declared, make_contract()).tolist() == [0, 0, 0]


def test_the_nearest_centre_is_found_in_scaled_units() -> None:
    # Scaled centres: (0.1, 0.9) and (0.5, 0.4). (240, 4) is (0.4, 0.7): 0.09 + 0.04 = 0.13 and 0.01 + 0.09 = 0.10;
    # in raw units it would be 900 + 16 and 100 + 36. (205, -2) is (0.05, 0.4): 0.2525 and 0.2025.
    contract = make_contract(ComputedContext(features=("temperature", "volume"), centres=((210.0, 8.0), (250.0, -2.0))))
    values = rows((240, 4), (205, -2), (210, 8), (-50, 99), (NAN, 8), (210, NAN))
    slots = context_slots(values, np.zeros(6, np.int64), contract)
    assert slots.tolist() == [2, 2, 1, 1, 0, 0]
    assert slots.dtype == np.int64


def test_the_units_decide_which_centre_is_near() -> None:
    # Raw, (230, 6) is nearer to (232, -6): 4 + 144 = 148 against 400 + 0. Scaled: 0.04 against 0.0004 + 0.36.
    contract = make_contract(ComputedContext(features=("temperature", "volume"), centres=((210.0, 6.0), (232.0, -6.0))))
    assert context_slots(rows((230, 6)), np.zeros(1, np.int64), contract).tolist() == [1]


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        ((900, 100), (1.0, 9.0)),
        ((100, 900), (9.0, 1.0)),
        ((10_000, 10), (1.0, 20.0)),
        ((50, 0), (1.0, 20.0)),
        ((5, 0), (1.0, 5.0)),
        ((0, 0), (1.0, 1.0)),
        ((), ()),
    ],
)
def test_class_weights_are_inverse_shares_within_1_and_20(counts: tuple[int, ...], weights: tuple[float, ...]) -> None:
    assert class_weights(counts) == weights
