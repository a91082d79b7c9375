"""Sparkplug ids: one topic segment each, and the way back from a device to the path of its instance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uns_topics.sparkplug import MessageType, SparkplugTopic
from uns_topics.sparkplug_ids import device_id, instance_path, validate_id


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("acme/Werk Köln/smt/line 1", "acme:Werk Köln:smt:line 1"),
        ("acme/a:b", "acme:a%3Ab"),
        ("acme/50%", "acme:50%25"),
        ("acme/#1+2", "acme:%231%2B2"),
        ("acme//x", "acme::x"),
        ("acme/\x85", "acme:%C2%85"),
    ],
)
def test_a_device_is_named_by_the_path_of_its_instance(path: str, device: str) -> None:
    assert device_id(path) == device
    assert instance_path(device) == path


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_two_paths_have_one_device_and_each_is_a_segment(path: str) -> None:
    device = device_id(path)
    assert instance_path(device) == path
    assert not set(device) & set("/+#\0")
    topic = SparkplugTopic("Headgate", MessageType.DDATA, "berlin-1", device)
    assert SparkplugTopic.parse(str(topic)) == topic


@pytest.mark.parametrize("text", ["", "a/b", "a+", "#", "a\0", " a", "a\n", "a\x7f"])
def test_an_id_that_is_no_segment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no Sparkplug id: one topic segment of printable characters"):
        validate_id(text)


@pytest.mark.parametrize("text", ["Headgate", "berlin-1", "Werk Köln", "a:b"])
def test_every_other_one_is_taken(text: str) -> None:
    assert validate_id(text) == text
