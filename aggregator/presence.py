"""Who is there, and who may be asked. Pure: everything follows from the state and the time.

Absence only counts while our own connection is up: a broker that is away says nothing about its participants.
"""

from __future__ import annotations

from aggregator.state import Bridge, Presence, Rules, State
from uns_topics.envelope import WIRE_VERSION
from uns_topics.presence import PERIODS_UNTIL_ABSENT, ParticipantState, ParticipantStatus

_ABLE = (ParticipantState.ONLINE, ParticipantState.TRAINING)


def silent_at(seen: float, rules: Rules) -> float:
    """When a heartbeat seen at this time has grown too old."""
    return seen + PERIODS_UNTIL_ABSENT * rules.heartbeat_s


def on_status(known: Presence | None, boot: str, status: ParticipantStatus, now: float) -> Presence | None:
    """The presence after a status; None where it is not believed.

    A will is believed only if it carries boot and birth of the last status seen: a late will of an older connection
    must not bury the younger one.
    """
    if status.state is ParticipantState.OFFLINE:
        if known is None or (known.boot, known.status.birth) != (boot, status.birth):
            return None
        since = known.offline_since if known.offline_since is not None else now
        return Presence(boot=boot, status=status, seen=now, offline_since=since)
    if known is not None and known.boot == boot and status.birth < known.status.birth:
        return None
    return Presence(boot=boot, status=status, seen=now)


def offline_since(state: State, participant: str, now: float) -> float | None:
    """Since when a participant is away; None while it is online."""
    link = state.link_since
    if link is None:
        return None
    known = state.presence.get(participant)
    if known is None:
        return link
    if known.offline_since is not None:
        return max(known.offline_since, link)
    silences = [silent_at(known.seen, state.rules)]
    for name in known.status.via:
        bridge = state.bridges.get(f"{participant}/{name}")
        if bridge is None:
            silences.append(known.seen)
        else:
            silences.append(silent_at(bridge.seen, state.rules) if bridge.online else bridge.seen)
    silent = min(silences)
    return silent if now >= silent else None


def silence_due(state: State, participant: str) -> float | None:
    """When this participant will count as silent unless it is heard; None where it is away already."""
    known = state.presence.get(participant)
    if known is None or known.offline_since is not None:
        return None
    bridges = (state.bridges.get(f"{participant}/{name}") for name in known.status.via)
    return min(
        [silent_at(known.seen, state.rules), *(silent_at(b.seen, state.rules) for b in bridges if b is not None)]
    )


def online(state: State, now: float) -> tuple[str, ...]:
    """Participants that are there now, in participant order."""
    if state.link_since is None:
        return ()
    return tuple(sorted(p for p in state.presence if offline_since(state, p, now) is None))


def is_capable(state: State, participant: str) -> bool:
    """Whether it could train if it had data: contract, generation, encoding, wire version, not on hold."""
    status = state.presence[participant].status
    rules = state.rules
    return (
        status.state in _ABLE
        and status.can_train
        and status.contract_hash == rules.contract_hash
        and status.generation == rules.generation
        and rules.encodings[0] in status.encodings
        and status.speaks[0] <= WIRE_VERSION <= status.speaks[1]
        and is_allowed(rules, participant)
    )


def is_allowed(rules: Rules, participant: str) -> bool:
    """Whether the federation lets this participant in."""
    return rules.allowed is None or participant in rules.allowed


def capable(state: State, now: float) -> tuple[str, ...]:
    """Online participants that could train."""
    return tuple(p for p in online(state, now) if is_capable(state, p))


def eligible(state: State, now: float) -> tuple[str, ...]:
    """Capable participants with enough newly matured samples."""
    wanted = state.rules.tolerances.min_new_samples
    return tuple(p for p in capable(state, now) if state.presence[p].status.new_samples >= wanted)


def expected_to_report(state: State, now: float) -> tuple[str, ...]:
    """Online participants that can send statistics or evaluations: they follow this plan and are not on hold."""
    found = []
    for participant in online(state, now):
        status = state.presence[participant].status
        follows = status.contract_hash == state.rules.contract_hash and status.generation == state.rules.generation
        if follows and status.state in _ABLE and is_allowed(state.rules, participant):
            found.append(participant)
    return tuple(found)


def on_bridge(known: Bridge | None, boot: str, birth: int, is_online: bool, now: float) -> Bridge | None:
    """The bridge's presence after its status, by the same rule for wills; None where it is not believed."""
    if not is_online and (known is None or (known.boot, known.birth) != (boot, birth)):
        return None
    if known is not None and known.boot == boot and birth < known.birth:
        return None
    seen = known.seen if known is not None and not known.online and not is_online else now
    return Bridge(boot=boot, birth=birth, online=is_online, seen=seen)
