"""Access rules: who may do what, and that brokers' files say just that."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from uns_topics.access import (
    CHUNKS,
    Access,
    AccessError,
    BrokerAccess,
    PlantEdge,
    Role,
    Rule,
    enterprise_access,
    kind_filter,
    plant_access,
)
from uns_topics.acl_files import covers, emqx_acl, hivemq_credentials, mosquitto_acl, overlap
from uns_topics.filters import matches
from uns_topics.payloads import PAYLOADS
from uns_topics.topic_page import topics_page
from uns_topics.topics import FlTopic, Kind, aggregator_filters, participant_filters

ENTERPRISE = enterprise_access()
PAUSE = "acme/berlin/_headgate/pause"
BERLIN = PlantEdge(
    "berlin",
    reads=("acme/berlin/smt/+/spi",),
    writes=("acme/berlin/smt/+/_inference/f/+", "acme/berlin/smt/_inference/f/_edge/berlin/alive"),
)
PLANT = plant_access((BERLIN,), PAUSE)
FIELDS = {"bridge": "gate", "transfer": "0123456789abcdef", "version": 3, "index": 0}


def topic(kind: Kind, participant: str = "berlin") -> str:
    values = {"participant": participant, **FIELDS}
    return str(FlTopic("f", kind, **{name: v for name, v in values.items() if f"{{{name}}}" in kind.path}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", Kind)
def test_on_the_enterprise_broker_a_participant_speaks_for_itself_alone(kind: Kind) -> None:
    own, foreign = topic(kind, "berlin"), topic(kind, "lyon")
    assert ENTERPRISE.allows("berlin", Access.WRITE, own) is not kind.is_down
    assert not ENTERPRISE.allows("berlin", Access.READ, topic(kind)) or kind.is_down
    if "{participant}" in kind.path:
        assert not ENTERPRISE.allows("berlin", Access.WRITE, foreign)
        assert not ENTERPRISE.allows("berlin", Access.READ, foreign)
    else:
        assert ENTERPRISE.allows("berlin", Access.READ, own)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_down])
def test_on_the_enterprise_broker_the_aggregator_alone_writes_down(kind: Kind) -> None:
    for user in ("berlin", "lyon", "observer", "nobody"):
        assert not ENTERPRISE.allows(user, Access.WRITE, topic(kind))
    assert ENTERPRISE.allows("aggregator", Access.WRITE, topic(kind)) is (kind is not Kind.ROUTE)
    assert PLANT.allows("bridge", Access.WRITE, topic(kind))


@pytest.mark.parametrize("access", [ENTERPRISE, PLANT])
@pytest.mark.parametrize("kind", Kind)
def test_an_observer_reads_json_and_writes_nothing(kind: Kind, access: BrokerAccess) -> None:
    assert access.allows("observer", Access.READ, topic(kind)) is (kind.form == "json")
    assert not access.allows("observer", Access.WRITE, topic(kind))


def test_what_services_subscribe_to_is_covered_by_one_rule() -> None:
    """HiveMQ and EMQX grant a subscription only where a single rule covers the whole filter."""
    wanted = [("berlin", ENTERPRISE, one) for one in participant_filters("f", "berlin")]
    wanted += [("aggregator", ENTERPRISE, one) for one in aggregator_filters("f")]
    wanted += [("berlin", ENTERPRISE, topic(kind)) for kind in CHUNKS]
    wanted += [("bridge", PLANT, "fl/v1/f/up/berlin/#"), ("bridge", PLANT, PAUSE)]
    wanted += [("berlin", PLANT, one) for one in BERLIN.reads]
    for user, access, topic_filter in wanted:
        rules = access.rules(user)
        assert any(Access.READ in r.access and covers(r.filter_for(user), topic_filter) for r in rules), topic_filter


def test_nobody_subscribes_to_the_whole_down_branch() -> None:
    for access in (ENTERPRISE, PLANT):
        for user in ("berlin", "observer", "aggregator", "bridge", "line", "operator"):
            assert not any(covers(r.filter_for(user), "fl/v1/f/down/#") for r in access.rules(user))


def test_on_a_plant_broker_tags_go_one_way_and_inference_the_other() -> None:
    tag, score = "acme/berlin/smt/line1/spi", "acme/berlin/smt/line1/_inference/f/score"
    alive = "acme/berlin/smt/_inference/f/_edge/berlin/alive"
    may = {
        (user, access, name)
        for user in ("berlin", "lyon", "line", "observer", "operator", "bridge")
        for access in (Access.READ, Access.WRITE)
        for name in (tag, score, alive, PAUSE)
        if PLANT.allows(user, access, name)
    }
    read, write = Access.READ, Access.WRITE
    watched = {(who, read, name) for who in ("observer", "operator") for name in (tag, score, alive, PAUSE)}
    assert may == watched | {
        ("berlin", read, tag),
        ("berlin", write, score),
        ("berlin", write, alive),
        ("line", write, tag),
        ("line", read, alive),
        ("operator", write, PAUSE),
        ("bridge", read, PAUSE),
    }


def test_one_federation_alone() -> None:
    access = enterprise_access("solder")
    assert access.allows("berlin", Access.READ, "fl/v1/solder/down/plan")
    assert not access.allows("berlin", Access.READ, "fl/v1/other/down/plan")
    assert not access.allows("berlin", Access.WRITE, "fl/v1/other/up/berlin/status")


def test_a_user_has_one_role() -> None:
    with pytest.raises(AccessError, match="two roles: x"):
        BrokerAccess((), (Role("a", ("x",), ()), Role("b", ("x",), ())))
    with pytest.raises(AccessError, match="two roles: bridge"):
        plant_access((PlantEdge("bridge", (), ()),), PAUSE)


@pytest.mark.parametrize("pause", ["a/#/b", "a\ntopic readwrite #", "a ", "a\x7f"])
def test_a_filter_that_would_write_lines_of_its_own_is_refused(pause: str) -> None:
    with pytest.raises(AccessError, match="topic filter"):
        plant_access((BERLIN,), pause)


# Files ---------------------------------------------------------------------------------------------------------------

USERS = ("aggregator", "observer", "operator", "bridge", "line", "berlin", "lyon")
TOPICS = (
    *(topic(kind, who) for kind in Kind for who in ("berlin", "lyon", *(("observer",) if "{p" in kind.path else ()))),
    *("acme/berlin/smt/line1/spi", "acme/berlin/smt/line1/_inference/f/score", PAUSE),
    *("acme/berlin/smt/_inference/f/_edge/berlin/alive", "acme/other", "fl/v1/f/down/other", "fl/v2/f/down/plan"),
)


def mosquitto_allows(acl: str, user: str, access: Access, name: str) -> bool:
    """Mosquitto's own rule: a user's denials, then its grants, then the patterns for everybody."""
    current, grants, denials = None, [], []
    for line in acl.splitlines():
        word, _, rest = line.partition(" ")
        if word == "user":
            current = rest
        elif word in ("topic", "pattern"):
            kind, _, topic_filter = rest.partition(" ")
            if word == "pattern":
                grants.append((kind, topic_filter.replace("%u", user)))
            elif current == user:
                (denials if kind == "deny" else grants).append((kind, topic_filter))
    if any(matches(topic_filter, name) for _, topic_filter in denials):
        return False
    word = "read" if access is Access.READ else "write"
    return any(word in kind and matches(topic_filter, name) for kind, topic_filter in grants)


def hivemq_allows(xml: str, user: str, access: Access, name: str) -> bool:
    root = ET.fromstring(xml)
    roles = {role.findtext("id"): role for role in root.iter("role")}
    ids = [i.text for u in root.iter("user") if u.findtext("name") == user for i in u.iter("id")]
    word = "SUBSCRIBE" if access is Access.READ else "PUBLISH"
    return any(
        p.findtext("activity") in (word, "ALL")
        and matches(str(p.findtext("topic")).replace("${{username}}", user), name)
        for i in ids
        for p in roles[i].iter("permission")
    )


def emqx_allows(acl: str, user: str, access: Access, name: str) -> bool:
    word = "subscribe" if access is Access.READ else "publish"
    for line in acl.splitlines():
        if line == "{deny, all}.":
            return False
        found = re.fullmatch(r'\{(allow|deny), (all|\{username, "(\S+)"\}), (\w+), \["(.+)"\]\}\.', line)
        if not line or line.startswith("%%"):
            continue
        assert found, line
        permission, who, named, action, topic_filter = found.groups()
        fits = (who == "all" or named == user) and action in (word, "all")
        if fits and matches(topic_filter.replace("${username}", user), name):
            return permission == "allow"
    raise AssertionError("no last rule")


@pytest.mark.parametrize("access", [ENTERPRISE, PLANT], ids=["enterprise", "plant"])
def test_every_broker_file_says_what_the_rules_say(access: BrokerAccess) -> None:
    acl, xml, conf = mosquitto_acl(access), hivemq_credentials(access, ("berlin", "lyon")), emqx_acl(access)
    named = {user for role in access.named for user in role.users}
    for user in (u for u in USERS if u in named or u in ("berlin", "lyon")):
        for name in TOPICS:
            for how in (Access.READ, Access.WRITE):
                expected = access.allows(user, how, name)
                assert emqx_allows(conf, user, how, name) is expected, (user, how, name)
                assert hivemq_allows(xml, user, how, name) is expected, (user, how, name)
                # What stands below a named user's own name is denied there whole; no participant has that name.
                if user not in name.split("/") or user in ("berlin", "lyon"):
                    assert mosquitto_allows(acl, user, how, name) is expected, (user, how, name)
                else:
                    assert not mosquitto_allows(acl, user, Access.WRITE, name)


def test_mosquitto_cannot_take_a_part_of_what_a_user_has() -> None:
    access = BrokerAccess((Rule("fl/v1/+/down/plan", Access.BOTH),), (Role("x", ("x",), (Rule("fl/#", Access.READ),)),))
    with pytest.raises(AccessError, match="fl/v1/\\+/down/plan from user x"):
        mosquitto_acl(access)


def test_names_are_escaped() -> None:
    edge = PlantEdge("berlin", ('a&b/"<c>/\\',), ())
    access = plant_access((edge,), PAUSE)
    root = ET.fromstring(hivemq_credentials(access, ()))
    assert 'a&b/"<c>/\\' in [p.text for p in root.iter("topic")]
    assert '["a&b/\\"<c>/\\\\"]' in emqx_acl(access)


@pytest.mark.parametrize(
    ("one", "other", "both", "wide"),
    [
        ("a/+", "a/b", True, True),
        ("a/b", "a/+", True, False),
        ("a/#", "a/+/c", True, True),
        ("a/+", "a/#", True, False),
        ("a/+/c", "a/b/d", False, False),
        ("a/b", "a/b/c", False, False),
        ("+/b/#", "a/+/c", True, False),
    ],
)
def test_filters_meet_and_contain(one: str, other: str, both: bool, wide: bool) -> None:
    assert overlap(one, other) is both
    assert overlap(other, one) is both
    assert covers(one, other) is wide


# The page ------------------------------------------------------------------------------------------------------------


def test_the_page_has_every_topic_and_every_payload() -> None:
    page = topics_page()
    for kind in Kind:
        assert f"| `{kind.path.replace('{', '<').replace('}', '>')}` |" in page
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert {model.__name__ for model in PAYLOADS.values()} <= headings
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == {heading.lower() for heading in headings}


def test_kind_filters_cover_their_topics() -> None:
    assert all(matches(kind_filter(kind), topic(kind)) for kind in Kind)
    assert all(matches(kind_filter(kind, "f", "berlin"), topic(kind)) for kind in Kind)
