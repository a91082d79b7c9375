"""Access rules as brokers' files say them: Mosquitto's ACL file, HiveMQ's file RBAC extension, EMQX's acl.conf."""

from __future__ import annotations

from itertools import zip_longest
from xml.sax.saxutils import escape

from uns_topics.access import CHUNKS, USER, Access, AccessError, BrokerAccess, Role, Rule, kind_filter
from uns_topics.filters import matches
from uns_topics.topics import ROOT, SHARED, Kind

_TITLE = "Access rules generated from Headgate's topic table. A participant's user name is its id."
_SCOPE = (
    "If several federations share this broker, generate one with --federation, or their participants see all of them."
)


def mosquitto_acl(access: BrokerAccess) -> str:
    """Mosquitto's ACL file.

    `pattern` lines hold for everybody, so what they would give to a named user is denied first: a `deny` is looked at
    before all else. Raises: AccessError: a denial would take what the user's own rules give.
    """
    lines = [f"# {_TITLE}", f"# {_SCOPE}", "# `deny` lines take from named users what the pattern lines give to all."]
    for role in access.named:
        for user in role.users:
            lines += ["", f"user {user}"]
            lines += [f"topic deny {topic}" for topic in _denied(access, role, user)]
            lines += [f"topic {_MOSQUITTO[rule.access]} {rule.filter_for(user)}" for rule in role.rules]
    lines += ["", "# participants: edges, and the uplink sessions of bridges"]
    lines += [f"pattern {_MOSQUITTO[rule.access]} {rule.filter.replace(USER, '%u')}" for rule in access.participants]
    return "\n".join(lines) + "\n"


_MOSQUITTO = {Access.READ: "read", Access.WRITE: "write", Access.BOTH: "readwrite"}


def _denied(access: BrokerAccess, role: Role, user: str) -> list[str]:
    """Filters that the patterns give and this role doesn't have. A whole tree in one line where it has none of it."""
    if role.participates:
        return []
    if not any(overlap(rule.filter_for(user), f"{ROOT}/#") for rule in role.rules):
        return [f"{ROOT}/#"]
    denied = []
    for pattern in access.participants:
        topic = pattern.filter_for(user)
        if any(pattern.access in own.access and covers(own.filter_for(user), topic) for own in role.rules):
            continue
        # No participant has a named user's name, so that what is denied below that name never exists.
        if not pattern.is_personal and any(overlap(own.filter_for(user), topic) for own in role.rules):
            raise AccessError(f"Mosquitto can't keep {topic} from user {user}, who has a part of it")
        denied.append(topic)
    return denied


def native_bridge_topics(federation: str, participant: str) -> tuple[str, ...]:
    """The `topic` lines of a native Mosquitto bridge, which stands in for Headgate's where no inspection is wanted."""
    up = (kind for kind in Kind if not kind.is_down and kind is not Kind.VIA)
    down = (*SHARED, Kind.HISTORY, *CHUNKS, Kind.RECEIPT)
    ways = {kind_filter(kind, federation, participant): "out" for kind in up}
    ways |= {kind_filter(kind, federation, participant): "in" for kind in down}
    return tuple(f"topic {topic} {way} 1" for topic, way in ways.items())


def hivemq_credentials(access: BrokerAccess, participants: tuple[str, ...]) -> str:
    """`credentials.xml` of HiveMQ's file RBAC extension, with `@user@` where each password's hash belongs.

    Args: participants: their ids; this extension knows no user whom its file doesn't list.
    """
    users = {user: [role.name] for role in access.named for user in role.users}
    for role in access.named:
        for user in role.users if role.participates else ():
            users[user].append("participant")
    for user in participants:
        users.setdefault(user, ["participant"])
    roles = {"participant": access.participants, **{role.name: role.rules for role in access.named}}
    lines = [
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>',
        f"<!-- {_TITLE}",
        "     Put a hash from the extension's own tool (or from deploy/make-certificates) in place of each @user@. -->",
        "<file-rbac>",
        "    <users>",
    ]
    for user, names in users.items():
        lines += ["        <user>", f"            <name>{escape(user)}</name>"]
        lines += [f"            <password>@{escape(user)}@</password>", "            <roles>"]
        lines += [f"                <id>{escape(name)}</id>" for name in names]
        lines += ["            </roles>", "        </user>"]
    lines += ["    </users>", "    <roles>"]
    for name, rules in roles.items():
        lines += ["        <role>", f"            <id>{escape(name)}</id>", "            <permissions>"]
        for rule in rules:
            topic = escape(rule.filter.replace(USER, "${{username}}"))
            lines += ["                <permission>", f"                    <topic>{topic}</topic>"]
            lines += [
                f"                    <activity>{_HIVEMQ[rule.access]}</activity>",
                "                </permission>",
            ]
        lines += ["            </permissions>", "        </role>"]
    return "\n".join([*lines, "    </roles>", "</file-rbac>"]) + "\n"


_HIVEMQ = {Access.READ: "SUBSCRIBE", Access.WRITE: "PUBLISH", Access.BOTH: "ALL"}


def emqx_acl(access: BrokerAccess) -> str:
    """EMQX's acl.conf. The first rule that fits decides, so each named user is closed before participants follow."""
    lines = [f"%% {_TITLE}", f"%% {_SCOPE}", "%% Set authorization.no_match = deny as well."]
    for role in access.named:
        for user in role.users:
            lines += ["", *(_emqx_rule(f'{{username, "{user}"}}', rule, user) for rule in role.rules)]
            if not role.participates:
                lines.append(f'{{deny, {{username, "{user}"}}, all, ["#"]}}.')
    lines += ["", "%% participants: edges, and the uplink sessions of bridges"]
    lines += [_emqx_rule("all", rule, "${username}") for rule in access.participants]
    return "\n".join([*lines, "", "{deny, all}."]) + "\n"


def _emqx_rule(who: str, rule: Rule, user: str) -> str:
    text = rule.filter_for(user).replace("\\", "\\\\").replace('"', '\\"')
    return f'{{allow, {who}, {_EMQX[rule.access]}, ["{text}"]}}.'


_EMQX = {Access.READ: "subscribe", Access.WRITE: "publish", Access.BOTH: "all"}


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the second filter covers is covered by the first one."""
    return (wide.endswith("#") or not narrow.endswith("#")) and matches(wide, narrow)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is covered by both filters."""
    for a, b in zip_longest(one.split("/"), other.split("/")):
        if "#" in (a, b):
            return True
        if a is None or b is None or (a != b and "+" not in (a, b)):
            return False
    return True
