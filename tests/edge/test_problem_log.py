"""Problems by topic: bounded, the last bad payload beside the last good one, the same after a restart."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge import problem_log
from edge.effects import Problem
from edge.problem_file import FILE, known_problems, read_problems, write_problems
from edge.problem_log import KEPT_BYTES, ProblemLog, Sighting

TOPIC = "Werk Süd/smt/Linie 3/spi"


def refuse(log: ProblemLog, topic: str, payload: bytes, now_s: float, *codes: str) -> None:
    log.refused(topic, payload, [Problem(code, topic, f"why {code}") for code in codes or ("undecodable",)], now_s)


def test_a_topic_counts_its_reasons_and_keeps_both_payloads() -> None:
    log = ProblemLog()
    log.took(TOPIC, b"1", 1.0)
    log.took(TOPIC, b"2", 2.0)
    refuse(log, TOPIC, b"{", 3.0)
    refuse(log, TOPIC, b"[]", 4.0, "undecodable", "future")
    ((topic, known),) = log.topics.items()
    assert topic == TOPIC
    assert known.counts == {"undecodable": 2, "future": 1}
    assert (known.code, known.detail, known.since_s) == ("future", "why future", 3.0)
    assert (known.bad, known.good) == (Sighting(4.0, b"[]", 2), Sighting(2.0, b"2", 1))


def test_a_topic_that_was_never_good_says_so_until_it_is() -> None:
    log = ProblemLog()
    refuse(log, TOPIC, b"\xff", 1.0)
    assert log.topics[TOPIC].good is None
    log.took(TOPIC, b"ok", 2.0)
    assert ProblemLog.load(log.dump()).topics[TOPIC].good == Sighting(2.0, b"ok", 2)


def test_nothing_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_log, "MAX_TOPICS", 3)
    monkeypatch.setattr(problem_log, "MAX_GOOD", 2)
    log = ProblemLog()
    for index in range(50):
        log.took(f"good/{index}", b"x" * 5000, 1.0)
        refuse(log, f"bad/{index}", b"x" * 100_000, float(index))
        refuse(log, "bad/always", b"x", float(index))
    refuse(log, "t" * 60_000, b"x", 99.0)
    assert list(log.topics) == ["bad/49", "bad/always", "t" * 1024]
    assert log.topics["bad/always"].counts["undecodable"] == 50
    assert log.forgotten == 49
    bad = log.topics["bad/49"].bad
    assert (len(bad.head), bad.size) == (KEPT_BYTES, 100_000)
    assert len(log._good) == 2
    assert all(len(head) == KEPT_BYTES for _, head, _ in log._good.values())


def test_a_payload_is_text_where_it_can_be_shown() -> None:
    cut = "ü".encode() * 300
    assert Sighting(0, cut[:511], 600).text == "ü" * 255
    assert Sighting(0, cut[:512], 600).text is not None
    for head in (b"\x1b[2J", b"\xff", "ü".encode()[:1], b"a\nb"):
        assert Sighting(0, head, len(head)).text is None
    assert Sighting(0, b"", 0).text == ""


def test_a_restart_goes_on_and_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    assert read_problems(tmp_path).topics == {}
    log = ProblemLog()
    log.took(TOPIC, b"fine", 1.0)
    refuse(log, TOPIC, b"\x00\xff", 2.0)
    refuse(log, "b", b"x", 3.0)
    write_problems(tmp_path, log.dump())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    again = known_problems(tmp_path)
    assert again.topics == log.topics
    refuse(again, TOPIC, b"{", 4.0)
    assert again.topics[TOPIC].counts["undecodable"] == 2
    assert again.topics[TOPIC].good == Sighting(1.0, b"fine", 4)
    for damaged in (b"", b"[]", b"{}", b'{"topics": [1], "forgotten": 0}', b"\xff", b"[" * 100_000):
        write_problems(tmp_path, damaged)
        assert known_problems(tmp_path).topics == {}
        with pytest.raises(ValueError):  # noqa: PT011 - which one it is says nothing to people
            read_problems(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_kills_while_it_is_written_leave_no_payloads_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_self: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                write_problems(tmp_path, ProblemLog().dump())
    assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]
    write_problems(tmp_path, ProblemLog().dump())
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
