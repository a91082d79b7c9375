"""What varies becomes a captured segment, what differs in kind doesn't."""

from __future__ import annotations

from edge.assess.topology import generalise, instance_of


def patterns(*topics: str, kind: str = "umh value") -> set[str]:
    found = generalise({tuple(topic.split("/")): kind for topic in topics})
    assert len(found) == len(topics)
    return {"/".join(pattern) for pattern in found.values()}


def test_lines_are_instances() -> None:
    assert patterns("a/line1/oven/t", "a/line2/oven/t", "a/line2/oven/h") == {"a/{line}/oven/t", "a/{line}/oven/h"}


def test_machines_of_one_line_are_none() -> None:
    topics = ("a/l/oven/t", "a/l/oven/zone", "a/l/printer/t", "a/l/printer/speed")
    assert patterns(*topics) == set(topics)
    assert patterns("a/l/oven/t", "a/l/printer/t") == {"a/l/oven/t", "a/l/printer/t"}


def test_tags_of_one_machine_are_none() -> None:
    assert patterns("a/oven/t1", "a/oven/t2") == {"a/oven/t1", "a/oven/t2"}
    assert patterns("a/oven1", "a/oven2", kind="flat t v") == {"a/{oven}"}


def test_sites_that_are_built_alike_are_instances_at_two_levels() -> None:
    topics = [f"acme/{site}/line{n}/{leaf}" for site in ("berlin", "lyon") for n in (1, 2) for leaf in ("t", "h", "p")]
    found = patterns(*topics)
    assert found == {f"acme/{{acme}}/{{line}}/{leaf}" for leaf in ("t", "h", "p")}


def test_a_line_that_lacks_a_tag_is_one_still() -> None:
    topics = [f"a/line{n}/{leaf}" for n in (1, 2, 3) for leaf in ("t", "h", "p/x")][:-1]
    assert patterns(*topics) == {"a/{line}/t", "a/{line}/h", "a/{line}/p/x"}


def test_the_instance_ends_with_the_last_capture_or_above_the_tags() -> None:
    assert instance_of([("a", "{line}", "oven", "t"), ("a", "{line}", "h")]) == ("a", "{line}")
    assert instance_of([("a", "l", "oven", "t"), ("a", "l", "h")]) == ("a", "l")
    assert instance_of([("a", "l", "t")]) == ("a", "l")
    assert instance_of([("t",)]) == ("t",)
