"""The export policy, its budget, and the plant's switches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge.bridge.config import BridgeConfig
from broker_bridge.bridge.pause import COMMAND_FILE, Pause
from broker_bridge.bridge.policy import EXPORTS, Budget, DailyBudget
from broker_bridge.bridge.service import pause_of, read_policy
from broker_bridge.settings import ConfigError, load
from tests.broker_bridge.bridge.examples import policy
from uns_topics.topics import Kind


def test_the_first_line_that_allows_it_is_named() -> None:
    made = policy(
        "update",
        allow=[
            {"federation": "a", "kinds": ["update"], "participants": ["berlin"]},
            {"federation": "a", "kinds": ["statistics", "update"]},
        ],
    )
    assert made.line("a", "berlin", "update") == "allow[0]"
    assert made.line("a", "lyon", "update") == "allow[1]"
    assert made.line("a", "berlin", "statistics") == "allow[1]"
    assert made.line("a", "berlin", "evaluation") is None
    assert made.line("b", "berlin", "update") is None


def test_without_lines_nothing_leaves() -> None:
    assert policy(allow=[]).line("solder-defect", "berlin", "status") is None


def test_what_can_leave_are_up_topics_that_are_spoken() -> None:
    assert set(EXPORTS) == {kind for kind in Kind if not kind.is_down} - {Kind.JOIN}


def write(folder: Path, **files: Any) -> BridgeConfig:
    config = {
        "bridge": "gate",
        "data_dir": "data",
        "plant": {"url": "mqtt://127.0.0.1"},
        "uplink": {"url": "mqtts://enterprise"},
        "participants": [{"federation": "f", "participant": "berlin"}],
        "policy": "policy.yaml",
        **files.pop("config", {}),
    }
    (folder / "bridge.yaml").write_text(yaml.safe_dump(config))
    (folder / "policy.yaml").write_text(yaml.safe_dump(files.get("policy", {"allow": []})))
    return load(BridgeConfig, folder / "bridge.yaml", {})


def test_an_unknown_key_of_a_policy_is_refused_with_its_file(tmp_path: Path) -> None:
    config = write(tmp_path, policy={"allow": [], "alow": []})
    with pytest.raises(ConfigError, match=r"policy\.yaml: alow: unknown key"):
        read_policy(config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"allow": [{"federation": "f", "kinds": ["raw-data"]}]}, "input should be 'update', 'status'"),
        ({"allow": [{"federation": "f", "kinds": ["status"]}]}, "'status' without 'presence'"),
        ({"allow": [{"federation": "f", "kinds": []}]}, "at least 1 item"),
        ({"budget": {"bytes_per_day": -1}}, "greater than or equal to 0"),
        ({"pause": {"topic": "fl/v1/f/down/pause"}}, "in the tree that upstream writes to"),
        ({"pause": {"topic": "acme/+/pause"}}, "contains a wildcard"),
    ],
)
def test_a_policy_that_can_t_be_meant_is_refused(tmp_path: Path, content: dict[str, Any], sentence: str) -> None:
    config = write(tmp_path, policy=content)
    with pytest.raises(ConfigError) as refused:
        read_policy(config)
    assert sentence in str(refused.value)


def test_a_missing_policy_is_no_free_way(tmp_path: Path) -> None:
    config = write(tmp_path)
    config.policy.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        read_policy(config)


def test_each_participant_connects_as_itself(tmp_path: Path) -> None:
    participants = [
        {"federation": "f", "participant": "berlin", "password_file": "secret"},
        {"federation": "f", "participant": "lyon", "username": "site-7"},
        {"federation": "f", "participant": "porto", "client_certificate_file": "c.pem", "client_key_file": "k.pem"},
    ]
    config = write(tmp_path, config={"participants": participants})
    berlin, lyon, porto = (config.uplink_of(p) for p in config.participants)
    assert (berlin.username, berlin.password_file) == ("berlin", tmp_path / "secret")
    assert lyon.username == "site-7"
    assert (porto.username, porto.client_key_file) == (None, tmp_path / "k.pem")
    assert {b.url for b in (berlin, lyon, porto)} == {"mqtts://enterprise"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"uplink": {"url": "mqtts://e", "username": "x"}}, "credentials stand at each participant"),
        ({"participants": [{"federation": "f", "participant": "b"}] * 2}, "participants named twice: b in f"),
        ({"participants": []}, "at least 1 item"),
        (
            {"participants": [{"federation": "f", "participant": "b", "client_key_file": "k"}]},
            "'client_certificate_file' and 'client_key_file' go together",
        ),
        ({"chunk_bytes": 100}, "greater than or equal to 15360"),
        ({"plnt": {}}, "plnt: unknown key"),
    ],
)
def test_a_configuration_that_can_t_work_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        write(tmp_path, config=change)
    assert sentence in str(refused.value)


# Budget ---------------------------------------------------------------------------------------------------------------


def test_a_budget_is_all_or_nothing_and_starts_anew_each_day() -> None:
    budget = Budget(DailyBudget(bytes_per_day=100, messages_per_day=3))
    assert budget.spend("2026-01-01", 60)
    assert not budget.spend("2026-01-01", 41)
    assert budget.spend("2026-01-01", 40)
    assert not budget.lasts("2026-01-01", 1)
    assert budget.spend("2026-01-01", 0)
    assert not budget.spend("2026-01-01", 0)  # a fourth message
    assert budget.spend("2026-01-02", 100)


@given(st.lists(st.tuples(st.sampled_from(["d1", "d2"]), st.integers(0, 50)), max_size=50))
def test_no_day_ever_exceeds_its_budget(spends: list[tuple[str, int]]) -> None:
    budget = Budget(DailyBudget(bytes_per_day=100, messages_per_day=5))
    day, size, count = "", 0, 0
    for at, payload_bytes in spends:
        if at != day:
            day, size, count = at, 0, 0
        if budget.spend(at, payload_bytes):
            size, count = size + payload_bytes, count + 1
        assert size <= 100
        assert count <= 5


def test_without_limits_everything_lasts() -> None:
    assert Budget(DailyBudget()).spend("d", 10**15, 10**9)


# Switches -------------------------------------------------------------------------------------------------------------


def test_any_switch_is_enough(tmp_path: Path) -> None:
    config = write(tmp_path, policy={"pause": {"file": "stop"}})
    pause = pause_of(config, read_policy(config))
    assert pause.reason is None
    (tmp_path / "stop").touch()
    assert pause.reason == "by its pause file"
    config.data_dir.mkdir()
    (config.data_dir / COMMAND_FILE).touch()
    assert pause.reason == "by command"
    (tmp_path / "stop").unlink()
    (config.data_dir / COMMAND_FILE).unlink()
    pause.on_topic(b"true")
    assert pause.reason == "by its pause topic"
    pause.on_topic(b"")
    assert pause.reason is None


@pytest.mark.parametrize("word", [b"true", b"TRUE\n", b"1", b"on", b"yes", b'{"value": false}', b"\xff"])
def test_what_isn_t_clearly_off_is_on(word: bytes) -> None:
    pause = Pause()
    pause.on_topic(word)
    assert pause.reason is not None


@pytest.mark.parametrize("word", [b"false", b"0", b" Off ", b""])
def test_off(word: bytes) -> None:
    pause = Pause()
    pause.on_topic(b"true")
    pause.on_topic(word)
    assert pause.reason is None


def test_a_link_that_leads_nowhere_is_a_switch_too(tmp_path: Path) -> None:
    (tmp_path / "stop").symlink_to(tmp_path / "nowhere")
    assert Pause(tmp_path / "stop").reason is not None


def test_a_switch_that_can_t_be_looked_at_is_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Pause(tmp_path / "file" / "stop").reason is not None  # not a directory
