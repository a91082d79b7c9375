"""The tree of topics: bounded, and fed with one call per message that reads nothing. Pure; time is an argument.

A message is only counted when it comes; its payload waits on its leaf, where a newer one takes its place, until
`settle` reads it. So 5,000 messages a second cost 5,000 countings, and as many readings as a display can use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from headgate.tree.decode import MAX_DECODED_BYTES, describe
from headgate.tree.leaf import Leaf
from headgate.tree.reading import Reading
from headgate.tree.sparkplug import Births
from uns_topics.sparkplug import DEATHS, NAMESPACE, MessageType, SparkplugTopic

MAX_TOPIC_BYTES = 1_024
"""A longer topic is left out and counted."""
MAX_LEVELS = 32
"""Of a deeper topic the rest stands in the last level."""
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Payloads that wait to be read; beyond it a message is counted and its value left out."""
MAX_SPARKPLUG_WAITING = 1_000
"""Messages: each may say another metric, so none takes the place of an older one."""
NODES_PER_TOPIC = 4
METRIC = "\0"
"""Starts the key of a metric among the children of its message's topic: no topic has this character."""
OWN = METRIC
"""Stands for a branch's own topic where its children are named by their keys."""
_START_BYTES = 64
_ALIVE = (MessageType.NBIRTH, MessageType.NDATA, MessageType.DBIRTH, MessageType.DDATA)

UnitOf = Callable[[str, str | None], str | None]
"""The configured unit by topic and metric; None where there is none."""


class Node:
    """One level of the tree. Attributes: leaf: what was said on its own topic; topics: leaves here and below."""

    __slots__ = ("children", "key", "leaf", "left_out", "newest", "parent", "rate", "topics", "unlisted")

    def __init__(self, key: str, parent: Node | None) -> None:
        self.key = key
        self.parent = parent
        self.children: dict[str, Node] = {}
        self.leaf: Leaf | None = None
        self.topics = 0
        self.left_out = ""
        """Why nothing is shown of this branch any more; empty for a live one."""
        self.unlisted = 0
        """Messages on topics below that had no room."""
        self.rate = 0.0
        self.newest = 0.0
        """The branch's rate and its last message, as `rows.measure` found them."""

    @property
    def is_metric(self) -> bool:
        return self.key.startswith(METRIC)

    @property
    def name(self) -> str:
        """What to show of it."""
        return self.key[1:] if self.is_metric else self.key

    def path(self) -> tuple[str, ...]:
        """Keys from the first level down."""
        keys: list[str] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            keys.append(node.key)
            node = node.parent
        return tuple(reversed(keys))

    def topic(self) -> str:
        """The topic, and after a space the metric."""
        path = self.path()
        if path and path[-1].startswith(METRIC):
            return f"{'/'.join(path[:-1])} {path[-1][1:]}"
        return "/".join(path)

    def walk(self) -> Iterator[Node]:
        """Itself and every node below, each before its children and these in their order."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children.values()))

    def leaves(self) -> Iterator[Node]:
        """Those of them that have a leaf."""
        return (node for node in self.walk() if node.leaf is not None)


class Tree:
    """All topics seen, at most `max_topics` leaves (metrics count), and four times as many nodes.

    Attributes:
        revision: rises whenever a node comes or goes.
        is_full: a topic came for which there was no room; whoever makes room sets it back.
        refused: messages on topics that are too long or had no room. unread: values that a newer one replaced, or that
            waited in vain. waiting_bytes: payloads that wait.
    """

    def __init__(self, max_topics: int, unit_of: UnitOf | None = None) -> None:
        self.root = Node("", None)
        self.max_topics = max_topics
        self.revision = 0
        self.is_full = False
        self.refused = 0
        self.unread = 0
        self.waiting_bytes = 0
        self.nodes = 0
        self._unit_of = unit_of
        self._by_topic: dict[str, Node] = {}
        self._waiting: dict[Node, None] = {}
        self._sparkplug: deque[tuple[Node, SparkplugTopic, bytes, float]] = deque()
        self._births = Births()

    @property
    def topics(self) -> int:
        """Leaves now."""
        return self.root.topics

    def record(self, topic: str, payload: bytes, now: float, *, retain: bool = False) -> None:
        """Count one message. An empty payload clears its topic."""
        node = self._by_topic.get(topic)
        if not payload:
            if node is not None:
                self.remove(node, only_leaf=True)
            return
        node = node or self._add(topic, now)
        leaf = node.leaf if node is not None else None
        if node is not None and leaf is not None:
            leaf.arrived(len(payload), now, retain=retain)
            self._wait(node, leaf, topic, payload, now)

    def settle(self, limit: int) -> int:
        """Read at most `limit` messages that wait, longest first; returns how many were read."""
        done = 0
        while self._sparkplug and done < limit:
            node, spoken, payload, came = self._sparkplug.popleft()
            self.waiting_bytes -= len(payload)
            if node.leaf is not None:
                self._read_sparkplug(node, spoken, payload, came)
            done += 1
        while self._waiting and done < limit:
            self.settle_one(next(iter(self._waiting)))
            done += 1
        return done

    def settle_one(self, node: Node) -> None:
        """Read what waits on one node, such as one that is in sight."""
        if node not in self._waiting:
            return
        del self._waiting[node]
        leaf = node.leaf
        if leaf is None or leaf.payload is None:
            return
        self.waiting_bytes -= len(leaf.payload)
        leaf.read(describe(node.topic(), leaf.payload, leaf.payload_bytes))

    def remove(self, node: Node, *, only_leaf: bool = False) -> None:
        """Forget a branch, or a topic and its metrics while what else is below it stays."""
        gone = [node] if only_leaf else list(node.leaves())
        if only_leaf:
            gone += [child for child in node.children.values() if child.is_metric]
        for one in gone:
            self._drop_leaf(one)
        if only_leaf:
            for key in [key for key in node.children if key.startswith(METRIC)]:
                del node.children[key]
                self.nodes -= 1
        else:
            self.nodes -= sum(1 for _ in node.walk()) - 1
            node.children.clear()
        self._prune(node)
        self.revision += 1

    def leave_out(self, path: tuple[str, ...], why: str, kept: frozenset[str] = frozenset()) -> None:
        """Forget a branch and keep its name, with the reason; no topic comes below it from now on.

        Args: kept: keys of the children that stay, and `OWN` for its own topic.
        """
        node = self.find(path)
        if node is None:
            return
        node.left_out = why  # before its leaves go, or it would go with them
        if node.leaf is not None and OWN not in kept:
            self.remove(node, only_leaf=True)
        for child in [child for key, child in node.children.items() if key not in kept and not child.is_metric]:
            self.remove(child)
        for one in self.root.walk():
            one.unlisted = 0

    def find(self, path: tuple[str, ...]) -> Node | None:
        """The node at these keys."""
        node: Node | None = self.root
        for key in path:
            node = node.children.get(key) if node is not None else None
        return node

    def copy(self) -> Tree:
        """What is shown while the display stands still; nothing waits in it."""
        twin = Tree(self.max_topics, self._unit_of)
        twin.root = _copied(self.root, None)
        twin.revision, twin.nodes = self.revision, self.nodes
        return twin

    def _add(self, topic: str, now: float) -> Node | None:
        if len(topic) > MAX_TOPIC_BYTES or len(topic.encode()) > MAX_TOPIC_BYTES:
            self.refused += 1
            return None
        path = topic.split("/", MAX_LEVELS - 1)
        node, missing = self.root, len(path)
        for key in path:
            child = node.children.get(key)
            if child is None:
                break
            node, missing = child, missing - 1
        if node.left_out:
            return None
        if not self._has_room(missing):
            node.unlisted += 1
            return None
        for key in path[len(path) - missing :]:
            node = self._child(node, key)
        self._give_leaf(node, now, topic, None)
        self._by_topic[topic] = node
        return node

    def _has_room(self, levels: int) -> bool:
        if self.topics < self.max_topics and self.nodes + levels <= NODES_PER_TOPIC * self.max_topics:
            return True
        self.is_full = True
        self.refused += 1
        return False

    def _child(self, node: Node, key: str) -> Node:
        child = node.children[key] = Node(key, node)
        self.nodes += 1
        self.revision += 1
        return child

    def _give_leaf(self, node: Node, now: float, topic: str, metric: str | None) -> Leaf:
        leaf = node.leaf = Leaf(now)
        if self._unit_of is not None:
            leaf.unit = self._unit_of(topic, metric)
        above: Node | None = node
        while above is not None:
            above.topics += 1
            above = above.parent
        self.revision += 1
        return leaf

    def _drop_leaf(self, node: Node) -> None:
        leaf = node.leaf
        if leaf is None:
            return
        if leaf.payload is not None:
            self.waiting_bytes -= len(leaf.payload)
        self._waiting.pop(node, None)
        node.leaf = None
        if not node.is_metric:
            self._by_topic.pop(node.topic(), None)
        above: Node | None = node
        while above is not None:
            above.topics -= 1
            above = above.parent

    def _prune(self, node: Node) -> None:
        """Take away levels under which nothing is left."""
        while node.parent is not None and not node.children and node.leaf is None and not node.left_out:
            del node.parent.children[node.key]
            self.nodes -= 1
            node = node.parent

    def _wait(self, node: Node, leaf: Leaf, topic: str, payload: bytes, now: float) -> None:
        if topic.startswith(NAMESPACE):
            spoken = SparkplugTopic.parse(topic)
            if spoken is not None:
                self._wait_sparkplug(node, spoken, payload, now)
                return
        kept = payload if len(payload) <= MAX_DECODED_BYTES else payload[:_START_BYTES]
        if leaf.payload is not None:
            self.unread += 1
            self.waiting_bytes -= len(leaf.payload)
            leaf.payload = None
        if self.waiting_bytes + len(kept) > MAX_WAITING_BYTES:
            self.unread += 1
            self._waiting.pop(node, None)
            return
        leaf.payload = kept
        self.waiting_bytes += len(kept)
        self._waiting[node] = None

    def _wait_sparkplug(self, node: Node, spoken: SparkplugTopic, payload: bytes, now: float) -> None:
        is_full = len(self._sparkplug) >= MAX_SPARKPLUG_WAITING
        if is_full or self.waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            self.unread += 1
            return
        self._sparkplug.append((node, spoken, payload, now))
        self.waiting_bytes += len(payload)

    def _read_sparkplug(self, node: Node, spoken: SparkplugTopic, payload: bytes, came: float) -> None:
        reading = self._births.read(spoken, payload)
        if node.leaf is not None:
            node.leaf.read(Reading(reading.kind, reading.text, note=reading.note))
        for name, one in reading.metrics:
            self._metric(node, name, one, came)
        if spoken.kind in DEATHS:
            self._died(spoken)

    def _metric(self, node: Node, name: str, reading: Reading, now: float) -> None:
        child = node.children.get(METRIC + name)
        if child is None:
            if not self._has_room(1):
                node.unlisted += 1
                return
            child = self._child(node, METRIC + name)
        leaf = child.leaf or self._give_leaf(child, now, node.topic(), name)
        leaf.arrived(0, now, retain=node.leaf is not None and node.leaf.is_retained)
        leaf.read(reading)

    def _died(self, spoken: SparkplugTopic) -> None:
        """All metrics of a device, or of a node and its devices, are stale."""
        of_node = spoken.kind is MessageType.NDEATH
        for kind in _ALIVE:
            node = self.find((NAMESPACE, spoken.group, kind.value, spoken.node))
            if node is not None and not of_node:
                node = node.children.get(spoken.device or "")
            for one in node.leaves() if node is not None else ():
                if one.leaf is not None:
                    one.leaf.offline = True


def _copied(node: Node, parent: Node | None) -> Node:
    twin = Node(node.key, parent)
    twin.leaf = node.leaf.copy() if node.leaf is not None else None
    twin.topics, twin.left_out = node.topics, node.left_out
    twin.children = {key: _copied(child, twin) for key, child in node.children.items()}
    return twin
