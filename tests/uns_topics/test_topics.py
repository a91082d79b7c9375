"""The topic table: every kind builds, parses back, and refuses what is malformed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.filters import matches
from uns_topics.topics import FlTopic, Kind, TopicError, aggregator_filters, participant_filters

FIELDS = {"participant": "berlin", "bridge": "dmz", "transfer": "0123456789abcdef", "version": 7, "index": 0}


def topic(kind: Kind) -> FlTopic:
    needed = {name: value for name, value in FIELDS.items() if f"{{{name}}}" in kind.path}
    return FlTopic("solder-defect", kind, **needed)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", Kind)
def test_a_topic_parses_back(kind: Kind) -> None:
    assert FlTopic.parse(str(topic(kind))) == topic(kind)


@pytest.mark.parametrize("kind", Kind)
def test_no_topic_has_more_than_seven_slashes(kind: Kind) -> None:
    assert str(topic(kind)).count("/") <= 7


@pytest.mark.parametrize("kind", [kind for kind in Kind if "{participant}" in kind.path and not kind.is_down])
def test_the_participant_sits_at_a_fixed_level(kind: Kind) -> None:
    assert str(topic(kind)).split("/")[4] == "berlin"


def test_a_topic_reads_as_documented() -> None:
    assert str(topic(Kind.UPDATE_CHUNK)) == "fl/v1/solder-defect/up/berlin/update/0123456789abcdef/0"
    assert str(topic(Kind.MODEL_CHUNK)) == "fl/v1/solder-defect/down/model/7/0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fl/v1",
        "fl/v2/f/down/plan",
        "fl/v1/F/down/plan",
        "fl/v1/f/down/plan/",
        "fl/v1/f/down/model/01/0",
        "fl/v1/f/down/model/-1/0",
        "fl/v1/f/up/Berlin/status",
        "fl/v1/f/up//status",
        "fl/v1/f/up/b/update/0123456789ABCDEF/0",
        "fl/v1/f/up/b/update/0123456789abcdef/manifest/0",
        "fl/v1/f/up/b/status\n",
        "acme/berlin/smt/line1/printer/temp",
    ],
)
def test_what_is_no_topic_is_refused(text: str) -> None:
    with pytest.raises(TopicError):
        FlTopic.parse(text)


@given(st.text())
def test_any_text_parses_or_is_refused_with_a_topic_error(text: str) -> None:
    with contextlib.suppress(TopicError):
        FlTopic.parse("fl/v1/" + text)


def test_a_missing_or_needless_field_is_refused() -> None:
    with pytest.raises(TopicError, match="needs participant"):
        FlTopic("f", Kind.STATUS)
    with pytest.raises(TopicError, match="has no participant"):
        FlTopic("f", Kind.PLAN, "berlin")


def test_participants_never_subscribe_to_model_chunks() -> None:
    chunks = [str(topic(kind)) for kind in (Kind.MODEL_CHUNK, Kind.DELTA_CHUNK, Kind.SKELETON_CHUNK)]
    filters = participant_filters("solder-defect", "berlin")
    assert not [c for c in chunks for f in filters if matches(f, c)]


def test_the_aggregator_hears_everything_that_goes_up() -> None:
    filters = aggregator_filters("solder-defect")
    up = [str(topic(kind)) for kind in Kind if not kind.is_down]
    assert all(any(matches(f, t) for f in filters) for t in up)
