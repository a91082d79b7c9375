"""Who may read and write which topic on a broker: pure values, computed from the topic table.

A role is named for what it does; its users are named by the broker's user names. A participant's user name is its id,
so that one rule serves all of them; every other user is named. How a broker's file says it is `acl_files`' subject.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Flag

from uns_topics.filters import matches, validate_filter
from uns_topics.topics import OWN, ROOT, SHARED, Kind

USER = "{user}"
"""Stands in a filter for the user name of whoever asks."""
AGGREGATOR, BRIDGE, OBSERVER, OPERATOR, LINE = "aggregator", "bridge", "observer", "operator", "line"
"""User names that no participant may have."""

CHUNKS = (Kind.SKELETON_CHUNK, Kind.MODEL_CHUNK, Kind.DELTA_CHUNK)
_UP = tuple(kind for kind in Kind if not kind.is_down)
_DOWN = tuple(kind for kind in Kind if kind.is_down)


class AccessError(ValueError):
    """Rules that contradict each other, or that a broker's file can't say."""


class Access(Flag):
    """What a rule allows on its topics; reading is subscribing and receiving."""

    READ = 1
    WRITE = 2
    BOTH = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One topic filter and what is allowed on it. The filter may hold `{user}` as a whole segment."""

    filter: str
    access: Access

    def filter_for(self, user: str) -> str:
        """The filter as it holds for one user."""
        return self.filter.replace(USER, user)

    @property
    def is_personal(self) -> bool:
        """Whether the filter holds the user's name."""
        return USER in self.filter


@dataclass(frozen=True, slots=True)
class Role:
    """What some users may do.

    Attributes:
        users: by name; empty for the participants, whose ids no file lists.
        participates: its users also have the participants' rules.
    """

    name: str
    users: tuple[str, ...]
    rules: tuple[Rule, ...]
    participates: bool = False


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """The access rules of one broker: whatever no rule allows is forbidden."""

    participants: tuple[Rule, ...]
    named: tuple[Role, ...]

    def __post_init__(self) -> None:
        """Raises: AccessError: a user in two roles, or a filter that is none or that a file can't hold in one line."""
        users = [user for role in self.named for user in role.users]
        if twice := sorted({user for user in users if users.count(user) > 1}):
            raise AccessError(f"users in two roles: {', '.join(twice)}")
        for rule in (*self.participants, *(rule for role in self.named for rule in role.rules)):
            try:
                validate_filter(rule.filter.replace(USER, "user"))
            except ValueError as error:
                raise AccessError(str(error)) from None
            if not rule.filter.isprintable() or rule.filter != rule.filter.strip():
                raise AccessError(f"topic filter {rule.filter!r}: a line of an access file can't hold it")

    def rules(self, user: str) -> tuple[Rule, ...]:
        """What holds for a user; one whom no role names is a participant."""
        for role in self.named:
            if user in role.users:
                return (*role.rules, *self.participants) if role.participates else role.rules
        return self.participants

    def allows(self, user: str, access: Access, topic: str) -> bool:
        """Whether a user may read or write one topic."""
        return any(access in rule.access and matches(rule.filter_for(user), topic) for rule in self.rules(user))


@dataclass(frozen=True, slots=True)
class PlantEdge:
    """An edge on its plant's broker, as topic filters: the tags it reads there and where its inference goes.

    Attributes:
        asks: what it says to those who send the tags: Sparkplug commands and a host's state.
        obeys: what SCADA says to it: commands to its Sparkplug node, and the state of that node's primary host.
    """

    participant: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    asks: tuple[str, ...] = ()
    obeys: tuple[str, ...] = ()


def enterprise_access(federation: str = "+") -> BrokerAccess:
    """The broker where the aggregator is. Participants are edges or the uplink sessions of bridges.

    Args: federation: one federation's id; `+` for all of this broker, whose participants then share user names.
    """
    aggregator = (
        Rule(f"{ROOT}/{federation}/up/#", Access.READ),
        *_rules(federation, (kind for kind in _DOWN if kind is not Kind.ROUTE), Access.BOTH),
    )
    return BrokerAccess(
        participants=_participant(federation),
        named=(Role(AGGREGATOR, (AGGREGATOR,), aggregator), Role(OBSERVER, (OBSERVER,), _observer(federation))),
    )


def plant_access(edges: tuple[PlantEdge, ...], pause: str, federation: str = "+") -> BrokerAccess:
    """A plant's own broker, which a bridge connects to the next zone.

    Args:
        edges: all on this broker. Only their tags can be written by the user `line`, a gateway or a simulated line.
        pause: the topic by which an operator stops what leaves.
    """
    tags = tuple(dict.fromkeys(topic for edge in edges for topic in edge.reads))
    outputs = tuple(dict.fromkeys(topic for edge in edges for topic in edge.writes))
    asks = tuple(dict.fromkeys(topic for edge in edges for topic in edge.asks))
    obeys = tuple(dict.fromkeys(topic for edge in edges for topic in edge.obeys))
    alive = tuple(topic for topic in outputs if topic.endswith("/alive"))
    bridge = (
        Rule(f"{ROOT}/{federation}/up/+/#", Access.READ),
        *_rules(federation, _DOWN, Access.BOTH),
        Rule(pause, Access.READ),
    )
    watching = (*_observer(federation), *_all(tags, Access.READ), *_all((*outputs, *asks), Access.READ))
    return BrokerAccess(
        participants=_participant(federation),
        named=(
            Role(BRIDGE, (BRIDGE,), bridge),
            Role(OBSERVER, (OBSERVER,), (*watching, *_all(obeys, Access.READ), Rule(pause, Access.READ))),
            Role(OPERATOR, (OPERATOR,), (*watching, *_all(obeys, Access.BOTH), Rule(pause, Access.BOTH))),
            Role(LINE, (LINE,), (*_all(tags, Access.WRITE), *_all((*alive, *asks), Access.READ))),
            *(
                Role(
                    f"edge-{edge.participant}",
                    (edge.participant,),
                    (
                        *_all(edge.reads, Access.READ),
                        *_all(edge.writes, Access.WRITE),
                        *_all(edge.asks, Access.BOTH),
                        *_all(edge.obeys, Access.READ),
                    ),
                    participates=True,
                )
                for edge in edges
            ),
        ),
    )


def _participant(federation: str) -> tuple[Rule, ...]:
    """Own reports up; down what is for all, what is for itself, and the chunks of what it fetches."""
    return (
        *_rules(federation, _UP, Access.WRITE, participant=USER),
        *_rules(federation, (*SHARED, Kind.HISTORY, *CHUNKS), Access.READ),
        *_rules(federation, OWN, Access.READ, participant=USER),
    )


def _observer(federation: str) -> tuple[Rule, ...]:
    """Everything that people can read: no chunk of a model or an update."""
    return _rules(federation, (kind for kind in Kind if kind.form == "json"), Access.READ)


def _rules(federation: str, kinds: Iterable[Kind], access: Access, participant: str = "+") -> tuple[Rule, ...]:
    return _all(dict.fromkeys(kind_filter(kind, federation, participant) for kind in kinds), access)


def _all(filters: Iterable[str], access: Access) -> tuple[Rule, ...]:
    return tuple(Rule(topic, access) for topic in filters)


def kind_filter(kind: Kind, federation: str = "+", participant: str = "+") -> str:
    """The topic filter of one kind of topic."""
    wild = dict.fromkeys(("bridge", "transfer", "version", "index"), "+")
    return f"{ROOT}/{federation}/{kind.path.format(participant=participant, **wild)}"
