from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.filters import TopicPattern, matches, validate_filter, validate_topic

SEGMENTS = st.sampled_from(["", "a", "b", "$x", "Ofen 1", "Öl.5", "温度", "{"])
TOPICS = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = (
    st.tuples(st.lists(st.one_of(SEGMENTS, st.just("+")), max_size=4), st.sampled_from(["a", "+", "#", ""]))
    .map(lambda parts: "/".join([*parts[0], parts[1]]))
    .filter(bool)
)


def covers(wanted: list[str], segments: list[str]) -> bool:
    """The rules of section 4.7.1, segment by segment."""
    if wanted == ["#"]:
        return True  # any number of further levels, none included: the parent
    if not wanted or not segments:
        return not wanted and not segments
    return wanted[0] in ("+", segments[0]) and covers(wanted[1:], segments[1:])


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # The examples of MQTT 3.1.1, sections 4.7.1.2, 4.7.1.3 and 4.7.2.
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("ACCOUNTS", "Accounts", False),
    ],
)
def test_the_specifications_examples(topic_filter: str, topic: str, *, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
    match = TopicPattern(topic_filter).match(topic)
    assert match == ({} if expected else None)


@given(FILTERS, TOPICS)
def test_matching_follows_the_rules_of_the_specification(topic_filter: str, topic: str) -> None:
    hidden = topic.startswith("$") and topic_filter[0] in "+#"
    assert matches(topic_filter, topic) is (not hidden and covers(topic_filter.split("/"), topic.split("/")))


@given(TOPICS)
def test_a_topic_is_a_filter_that_covers_itself(topic: str) -> None:
    assert validate_filter(validate_topic(topic)) == topic
    assert matches(topic, topic)


@given(st.lists(st.sampled_from(["a", "+", "{line}", "{cell}", "Öl"]), min_size=1, max_size=5), TOPICS, st.booleans())
def test_a_pattern_matches_what_its_filter_matches(segments: list[str], topic: str, open_ended: bool) -> None:
    unique = [segment for index, segment in enumerate(segments) if segment[0] != "{" or segment not in segments[:index]]
    text = "/".join([*unique, "#"] if open_ended else unique)
    pattern = TopicPattern(text)
    match = pattern.match(topic)
    assert (match is not None) is matches(*pattern.filters, topic)
    if match is not None:
        parts = topic.split("/")
        assert match == {segment[1:-1]: parts[at] for at, segment in enumerate(unique) if segment[0] == "{"}


def test_captured_segments_are_unchanged() -> None:
    pattern = TopicPattern("acme/berlin/smt/{line}/printer/+/{tag}")
    assert pattern.filters == ("acme/berlin/smt/+/printer/+/+",)
    assert pattern.names == ("line", "tag")
    line = "Linie 1.ä e\u0301"
    assert pattern.match(f"acme/berlin/smt/{line}/printer/x/temp") == {"line": line, "tag": "temp"}
    assert pattern.match(f"acme/lyon/smt/{line}/printer/x/temp") is None
    assert pattern.match(f"acme/berlin/smt/{line}/printer/x/temp/raw") is None
    assert TopicPattern("a/{b}/#").match("a/") == {"b": ""}


def test_a_capture_may_take_several_segments() -> None:
    pattern = TopicPattern("umh/v1/{path...}/_historian/{tag}")
    assert pattern.filters[:2] == ("umh/v1/+/_historian/+", "umh/v1/+/+/_historian/+")
    assert (len(pattern.filters), pattern.deep, pattern.names) == (6, "path", ("path", "tag"))
    assert pattern.match("umh/v1/acme/_historian/temp") == {"path": "acme", "tag": "temp"}
    deepest = pattern.match("umh/v1/acme/köln/smt/l1/c2/o3/_historian/temp")
    assert deepest == {"path": "acme/köln/smt/l1/c2/o3", "tag": "temp"}
    assert TopicPattern("umh/v1/{path...}").fill(deepest) == "umh/v1/acme/köln/smt/l1/c2/o3"
    for topic in ("umh/v1/_historian/temp", "umh/v1/a/b/c/d/e/f/g/_historian/temp", "umh/v1/a/_raw/temp", "umh/v1"):
        assert pattern.match(topic) is None
        assert not any(matches(one, topic) for one in pattern.filters)
    for text in ("{a...}/{b...}", "{a...}/#"):
        with pytest.raises(ValueError, match="only one part of it can be of any depth"):
            TopicPattern(text)


def test_patterns_are_values() -> None:
    assert TopicPattern("a/{b}") == TopicPattern("a/{b}")
    assert len({TopicPattern("a/{b}"), TopicPattern("a/{b}"), TopicPattern("a/{c}")}) == 2
    assert repr(TopicPattern("a/{b}")) == "TopicPattern('a/{b}')"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "can't be empty"),
        ("a/{line}/{line}", r"'\{line\}' stands in it more than once"),
        ("a/{line", "'{line' is no capture"),
        ("a/x{line}", "'x{line}' is no capture"),
        ("a/{1}", r"'\{1\}' is no capture"),
        ("a/{}", "'{}' is no capture"),
        ("a/{b-c}", "'{b-c}' is no capture"),
        ("a/#/b", "'#' must be the whole last segment"),
        ("a/b#", "'#' must be the whole last segment"),
        ("a/b+/c", r"'\+' must be a whole segment"),
        ("a/\0", r"U\+0000"),
        ("a/\ud800", "UTF-8"),
        ("ä" * 40_000, "80000 bytes"),
    ],
)
def test_bad_patterns_are_explained(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TopicPattern(text)


@pytest.mark.parametrize("text", ["", "a/+", "a/#", "a+", "a\0", "\ud800", "x" * 65_536])
def test_bad_topics_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"topic"):
        validate_topic(text)


def test_the_longest_topic_is_accepted() -> None:
    assert validate_topic("x" * 65_535)
