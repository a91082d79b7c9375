"""Which payload each topic carries: the one place where topic and declared model meet."""

from __future__ import annotations

from uns_topics.envelope import Envelope, PayloadError, seal, unseal
from uns_topics.model import Value
from uns_topics.plan import Plan
from uns_topics.presence import AggregatorStatus, BridgeStatus, ParticipantStatus, Route
from uns_topics.reference import Reference
from uns_topics.reports import DataQuality, Evaluation, LastUpdate, Statistics
from uns_topics.rounds import History, Receipt, RoundAnnouncement, VersionManifest
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import TransferManifest

PAYLOADS: dict[Kind, type[Value]] = {
    Kind.AGGREGATOR_STATUS: AggregatorStatus,
    Kind.PLAN: Plan,
    Kind.ROUND: RoundAnnouncement,
    Kind.MODEL_CURRENT: VersionManifest,
    Kind.MODEL_CANDIDATE: VersionManifest,
    Kind.REFERENCE: Reference,
    Kind.HISTORY: History,
    Kind.RECEIPT: Receipt,
    Kind.ROUTE: Route,
    Kind.STATUS: ParticipantStatus,
    Kind.VIA: BridgeStatus,
    Kind.STATISTICS: Statistics,
    Kind.UPDATE_MANIFEST: TransferManifest,
    Kind.EVALUATION: Evaluation,
    Kind.DATA_QUALITY: DataQuality,
    Kind.LAST_UPDATE: LastUpdate,
}
"""Every JSON topic that is spoken today and its declared model."""


class Writer:
    """Seals what one process says: its envelope's `sequence` counts up with every message.

    Args: federation, sender: who speaks; boot: drawn once per process, 8 hex digits.
    """

    def __init__(self, federation: str, sender: str, boot: str) -> None:
        self.boot = boot
        self._federation = federation
        self._sender = sender
        self._sequence = 0

    def seal(self, body: Value) -> bytes:
        """The next message's bytes."""
        self._sequence += 1
        return seal(Envelope(self._federation, self._sender, self.boot, self._sequence), body)


def read(topic: FlTopic, payload: bytes) -> tuple[Envelope, Value]:
    """Read a JSON payload by its topic: declared model, same federation, and up-topics only from their participant.

    Raises: PayloadError: anything else. UnknownWireVersion: another wire schema.
    """
    if topic.kind not in PAYLOADS:
        raise PayloadError(f"nothing is declared for {topic.kind.path}")
    envelope, body = unseal(payload, PAYLOADS[topic.kind])
    if envelope.federation != topic.federation:
        raise PayloadError(f"it names another federation than {topic.federation}, on whose topic it is")
    speaks_for_itself = topic.participant is not None and not topic.kind.is_down and topic.kind is not Kind.VIA
    if speaks_for_itself and envelope.sender != topic.participant:
        raise PayloadError(f"it names another sender than {topic.participant}, on whose topic it is")
    if topic.kind is Kind.VIA and envelope.sender != topic.bridge:
        raise PayloadError("it names another sender than the bridge on whose topic it is")
    return envelope, body
