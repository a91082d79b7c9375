"""Update and residual on disk: whatever ends the process, each update counts once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edge.outbox import Belonging, Outbox, Waiting
from edge.store import SampleStore
from tests.edge.versions import TEMPLATE
from uns_topics.codes import Code
from uns_topics.encodings import encoding
from uns_topics.template import Lineage
from uns_topics.tensors import Role
from uns_topics.transfers import transfer_id
from uns_topics.update import UpdateHeader, pack_groups, pack_update

TABLE = TEMPLATE.table
BELONGS = Belonging(generation=1, template=TEMPLATE.sha256)
WEIGHTS = TABLE.elements(Role.WEIGHT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    with SampleStore(tmp_path / "samples.sqlite") as made:
        yield made


def delta_of(round_number: int) -> np.ndarray:
    return np.random.default_rng(round_number).normal(0, 0.1, WEIGHTS).astype(np.float32)


def send(
    box: Outbox, round_number: int, name: str = "ternary", controls: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[str, np.ndarray]:
    """As an edge does it.

    Args: controls: c_k and its change.
    Returns: the transfer, and what the receiver decodes."""
    delta, residual = delta_of(round_number), box.residual(round_number)
    whole = np.zeros(TABLE.size, np.float32)
    TABLE.scatter(whole, Role.WEIGHT, delta if residual is None else residual.values + delta)
    own, change = controls if controls is not None else (None, None)
    groups, body = pack_groups(whole, TABLE, name, change)
    content = pack_update(
        UpdateHeader(
            federation="tiny", participant="berlin", round_number=round_number, attempt=1, base="a" * 64,
            generation=1, num_examples=10, num_steps=5, groups=groups,
        ),
        body,
    )  # fmt: skip
    feeds = encoding(name).feedback
    waiting = Waiting(
        belongs=BELONGS, transfer=transfer_id(content), version=round_number, base="a" * 64,
        round_number=round_number, attempt=1, num_examples=10, num_steps=5, seconds=0.5,
        elements=WEIGHTS if feeds else 0, control_elements=0 if own is None else own.size,
    )  # fmt: skip
    box.send(waiting, delta if feeds else np.empty(0, np.float32), content, own)
    return waiting.transfer, encoding(name).decode(body[: groups[0].bytes], WEIGHTS)


def test_accepted_commits_and_a_second_receipt_changes_nothing(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    transfer, sent = send(box, 1)
    box.settle(transfer, "accepted", None)
    for _ in range(2):
        residual = box.residual(2)
        assert residual is not None
        np.testing.assert_array_equal(residual.values, delta_of(1) - sent)
        assert box.waiting() is None
        box.settle(transfer, "accepted", None)
        box.settle(transfer, None, None)


def test_a_restart_finds_both(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.sqlite") as store:
        first, sent = send(Outbox(store, BELONGS, TABLE), 1)
        Outbox(store, BELONGS, TABLE).settle(first, "accepted", None)
        second, _ = send(Outbox(store, BELONGS, TABLE), 2)
    with SampleStore(tmp_path / "s.sqlite") as store:
        box = Outbox(store, BELONGS, TABLE)
        found = box.waiting()
        assert found is not None
        assert (found[0].transfer, found[0].round_number, transfer_id(found[1])) == (second, 2, second)
        box.settle(second, "rejected", Code.NORM)
        residual = box.residual(3)
        assert residual is not None
        np.testing.assert_array_equal(residual.values, delta_of(1) - sent)


def test_one_that_gives_way_is_lost_and_its_late_receipt_says_nothing(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    first, _ = send(box, 1)
    second, sent = send(box, 2)  # nothing was heard of the first one
    box.settle(first, "accepted", None)
    assert box.waiting() is not None
    box.settle(second, "accepted", None)
    residual = box.residual(3)
    assert residual is not None
    np.testing.assert_array_equal(residual.values, (delta_of(1) + delta_of(2)) - sent)


def test_floats_wait_too_and_leave_no_residual(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    transfer, _ = send(box, 1, "f32")
    assert box.waiting() is not None
    box.settle(transfer, None, None)
    assert box.waiting() is None
    assert box.residual(2) is None


def test_another_plan_finds_neither(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    transfer, _ = send(box, 1)
    box.settle(transfer, "accepted", None)
    send(box, 2)
    for belongs in (Belonging(generation=2, template=TEMPLATE.sha256), Belonging(generation=1, template="b" * 64)):
        other = Outbox(store, belongs, TABLE)
        assert other.waiting() is None
        assert other.residual(3) is None


def test_a_residual_of_old_is_not_added(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    transfer, _ = send(box, 1)
    box.settle(transfer, "accepted", None)
    assert box.residual(21) is not None
    assert box.residual(22) is None


@pytest.mark.parametrize("name", ["update-under-way", "residual", "control"])
@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\xff" * 50, b'{"belongs":1}\nabc'])
def test_what_another_release_left_is_forgotten(store: SampleStore, name: str, content: bytes) -> None:
    store.put(name, content)
    box = Outbox(store, BELONGS, TABLE)
    assert box.waiting() is None
    assert box.residual(1) is None
    assert not box.control(1, made_from(0)).any()


def test_a_cut_off_update_is_forgotten(store: SampleStore) -> None:
    box = Outbox(store, BELONGS, TABLE)
    transfer, _ = send(box, 1)
    raw = store.get("update-under-way")
    assert raw is not None
    store.put("update-under-way", raw[:-1])
    assert box.waiting() is None
    box.settle(transfer, "accepted", None)
    assert box.residual(2) is None


def made_from(parent: int) -> Lineage:
    """Of the version that the round from this parent made: both are numbered alike here."""
    return Lineage(origin="round", parent=parent, round_number=parent, contributors=2)


def change_of(round_number: int) -> np.ndarray:
    return np.random.default_rng(100 + round_number).normal(0, 1, WEIGHTS).astype(np.float32)


@pytest.mark.parametrize("name", ["f32", "ternary"])
def test_an_accepted_update_commits_its_control_with_its_residual(store: SampleStore, name: str) -> None:
    box = Outbox(store, BELONGS, TABLE)
    own = np.zeros(WEIGHTS, np.float32)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(box.control(number, made_from(number - 1)), own)
        transfer, _ = send(box, number, name, (own, change_of(number)))
        np.testing.assert_array_equal(box.control(number, made_from(number - 1)), own)  # not before its receipt
        for _ in range(2):
            box.settle(transfer, "accepted", None)
        own = own + change_of(number)
    np.testing.assert_array_equal(box.control(4, made_from(3)), own)
    assert (box.residual(4) is not None) == (name == "ternary")


@pytest.mark.parametrize(("result", "code"), [("rejected", Code.NORM), ("rejected", Code.LATE), (None, None)])
def test_a_rejected_or_lost_update_leaves_its_control_as_it_was(
    store: SampleStore, result: Literal["rejected"] | None, code: Code | None
) -> None:
    box = Outbox(store, BELONGS, TABLE)
    first, _ = send(box, 1, "f32", (np.zeros(WEIGHTS, np.float32), change_of(1)))
    box.settle(first, "accepted", None)
    second, _ = send(box, 2, "f32", (change_of(1), change_of(2)))
    box.settle(second, result, code)
    np.testing.assert_array_equal(box.control(3, made_from(2)), change_of(1))


def test_a_refused_version_takes_its_control_with_it(store: SampleStore) -> None:
    """Rounds 2 and 3 start from version 2, because round 2's version was refused."""
    box = Outbox(store, BELONGS, TABLE)
    first, _ = send(box, 1, "f32", (np.zeros(WEIGHTS, np.float32), change_of(1)))
    box.settle(first, "accepted", None)
    base = Lineage(origin="round", parent=1, round_number=1, contributors=2)
    for _ in range(2):
        own = box.control(2, base)
        np.testing.assert_array_equal(own, change_of(1))
        transfer, _ = send(box, 2, "f32", (own, change_of(2)))
        box.settle(transfer, "accepted", None)
    np.testing.assert_array_equal(box.control(2, base), change_of(1))
    np.testing.assert_array_equal(box.control(3, made_from(2)), change_of(1) + change_of(2))


def test_a_restart_finds_the_pair_and_another_plan_does_not(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "s.sqlite") as store:
        box = Outbox(store, BELONGS, TABLE)
        first, _ = send(box, 1, "ternary", (np.zeros(WEIGHTS, np.float32), change_of(1)))
        box.settle(first, "accepted", None)
        second, _ = send(box, 2, "ternary", (change_of(1), change_of(2)))
    with SampleStore(tmp_path / "s.sqlite") as store:
        box = Outbox(store, BELONGS, TABLE)
        np.testing.assert_array_equal(box.control(2, made_from(1)), change_of(1))
        found = box.waiting()
        assert found is not None
        assert transfer_id(found[1]) == second
        box.settle(second, "accepted", None)
        np.testing.assert_array_equal(box.control(3, made_from(2)), change_of(1) + change_of(2))
        for belongs in (Belonging(generation=2, template=TEMPLATE.sha256), Belonging(generation=1, template="b" * 64)):
            assert not Outbox(store, belongs, TABLE).control(3, made_from(2)).any()
