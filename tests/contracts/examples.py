"""One example of everything that goes over the wire, the same in every run."""

from __future__ import annotations

import numpy as np

from uns_topics.codes import Code, DataProblem, QualityCheck, Reason
from uns_topics.contract import Contract, Metric
from uns_topics.encodings import ENCODINGS
from uns_topics.envelope import Envelope, seal
from uns_topics.model import Value
from uns_topics.plan import Plan, Strategy, TemplateManifest, Tolerances, Training
from uns_topics.presence import (
    AggregatorStatus,
    BridgeStatus,
    ParticipantState,
    ParticipantStatus,
    Route,
    Serves,
    Variant,
    Want,
)
from uns_topics.reference import FeatureReference, Reference
from uns_topics.reports import (
    DataQuality,
    Evaluation,
    FeatureCell,
    FeatureQuality,
    Figure,
    LastUpdate,
    ModelScores,
    PartScores,
    QualityFinding,
    Statistics,
    Sums,
)
from uns_topics.rounds import (
    ClientConfig,
    History,
    ParticipantOutcome,
    Receipt,
    RoundAnnouncement,
    RoundSummary,
    VersionManifest,
)
from uns_topics.sketch import Sketch
from uns_topics.standardisation import Moments
from uns_topics.template import Lineage, Network, TemplateInfo, make_template
from uns_topics.tensors import Role, Tensor, TensorTable, vector_bytes, vector_sha256
from uns_topics.topics import Kind
from uns_topics.transfers import KIB, chunk_of, encode_chunk, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups

CONTRACT = Contract.model_validate(
    {
        "federation": "solder-defect",
        "features": [
            {"name": "paste_volume", "unit": "%", "minimum": 0, "maximum": 250},
            {"name": "humidity", "unit": "%", "minimum": 0, "maximum": 100, "optional": True},
        ],
        "label": {"kind": "classes", "name": "solder", "classes": ["good", "defect"], "positive": "defect"},
        "sample": {"kind": "event", "key": "board"},
        "metric": "average_precision",
    }
)
TABLE = TensorTable(
    tensors=(
        Tensor(name="standardise.mean", shape=(1, 2), role=Role.FROZEN, offset=0, file_offset=3),
        Tensor(name="network.weight", shape=(2, 2), role=Role.WEIGHT, offset=2, file_offset=11),
        Tensor(name="calibration.scale", shape=(1,), role=Role.LOCAL, offset=6, file_offset=27),
    )
)
VECTOR = np.array([0.5, 0.25, 1.0, -2.0, 0.125, 3.0, 1.0], np.float32)
DELTA = np.array([0.0, 0.0, 0.5, -0.5, 0.25, 0.0625, 0.0], np.float32)
ELEMENTS = np.array([(i * 37 % 101 - 50) ** 3 / 2**16 for i in range(103)], np.float32)
GRAPH = bytes([7 << 3 | 2, 29]) + bytes(29)  # field 7 of a ModelProto (the graph), 29 bytes
TEMPLATE = make_template(
    GRAPH, TemplateInfo(network=Network(kind="mlp", hidden=(2,)), contract=CONTRACT, output="score", table=TABLE)
)
LINEAGE = Lineage(origin="round", parent=1, round_number=1, contributors=2)
VERSION = VersionManifest(
    version=2,
    sha256=vector_sha256(VECTOR),
    generation=1,
    epoch=1,
    lineage=LINEAGE,
    full=make_manifest(vector_bytes(VECTOR), "model", 15 * KIB, version=2),
    golden=(0.25, 0.75),
)
TRAINING = Training()
SUMS = Sums(n=40, sum=12.5, sum_squares=6.25)
FIGURE = Figure(value=0.75, low=0.5, high=0.875, n=40)
SCORES = ModelScores(loss=SUMS, metric=FIGURE, histograms={"good": ((32, 25), (64, 15))})
UPDATE = encode_update(
    UpdateHeader(
        federation="solder-defect",
        participant="berlin",
        round_number=1,
        attempt=1,
        base=vector_sha256(VECTOR),
        generation=1,
        num_examples=720,
        num_steps=100,
        metrics={"loss": 0.5},
        groups=pack_groups(DELTA, TABLE, "f32")[0],
    ),
    pack_groups(DELTA, TABLE, "f32")[1],
)
UPDATE_MANIFEST = make_manifest(UPDATE, "update", 15 * KIB, base=vector_sha256(VECTOR), round_number=1, attempt=1)

BODIES: dict[Kind, Value] = {
    Kind.AGGREGATOR_STATUS: AggregatorStatus(birth=1, state="online", epoch=1),
    Kind.PLAN: Plan(
        generation=1,
        contract=CONTRACT,
        contract_hash=CONTRACT.meaning_sha256,
        template=TemplateManifest(
            sha256=TEMPLATE.sha256,
            network=TEMPLATE.info.network,
            table=TABLE,
            skeleton=make_manifest(TEMPLATE.skeleton, "skeleton", 15 * KIB),
        ),
        strategy=Strategy(),
        training=TRAINING,
        encodings=("f32", "f16"),
        tolerances=Tolerances(rounds=8),
    ),
    Kind.ROUND: RoundAnnouncement(
        round_number=1,
        attempt=1,
        epoch=1,
        state="open",
        base=1,
        base_sha256=vector_sha256(VECTOR),
        generation=1,
        cohort=("berlin", "lyon"),
        client=ClientConfig(training=TRAINING, encoding="f32", class_weights=(1.0, 9.5)),
        seed=42,
        seconds_left=60.0,
    ),
    Kind.MODEL_CURRENT: VERSION,
    Kind.MODEL_CANDIDATE: VERSION.model_copy(
        update={"version": 3, "full": make_manifest(vector_bytes(VECTOR), "model", 15 * KIB, version=3)}
    ),
    Kind.HISTORY: History(
        rounds=(
            RoundSummary(
                round_number=1,
                result="promoted",
                version=2,
                attempt=1,
                seconds=1.5,
                participants=(
                    ParticipantOutcome(
                        participant="berlin", outcome="accepted", num_examples=720, payload_bytes=len(UPDATE)
                    ),
                    ParticipantOutcome(participant="lyon", outcome="rejected", code=Code.NORM, payload_bytes=100),
                ),
                candidate_loss=0.5,
                current_loss=0.75,
            ),
        ),
        current=2,
    ),
    Kind.REFERENCE: Reference(
        generation=1,
        participants=("berlin", "lyon", "turin"),
        features=(
            FeatureReference(feature="paste_volume", sites=3, rows=2160, quantiles=(71.5, 88.0, 99.25, 110.5, 128.0)),
        ),
    ),
    Kind.RECEIPT: Receipt(id=UPDATE_MANIFEST.id, result="missing", chunks=(0, 2)),
    Kind.STATUS: ParticipantStatus(
        birth=2,
        state=ParticipantState.ONLINE,
        samples=1200,
        new_samples=720,
        instances=1,
        holds_version=2,
        serves=Serves(version=2, variant=Variant.GLOBAL),
        contract_hash=CONTRACT.meaning_sha256,
        generation=1,
        can_train=True,
        encodings=("f32", "f16"),
        wants=(Want.CANDIDATE,),
        reason=Reason.FETCHING_MODEL,
    ),
    Kind.VIA: BridgeStatus(birth=1, state="online"),
    Kind.ROUTE: Route(bridges=("dmz", "enterprise"), chunk_bytes=15 * KIB),
    Kind.STATISTICS: Statistics(
        generation=1,
        rows=720,
        label_counts=(650, 70),
        cells=(
            FeatureCell(
                slot=0,
                feature="paste_volume",
                moments=Moments(n=720, sum=288.0, sum_squares=120.5),
                sketch=Sketch(steps=(210, 1, 12), rows=(200, 310, 210)),
            ),
        ),
    ),
    Kind.UPDATE_MANIFEST: UPDATE_MANIFEST,
    Kind.EVALUATION: Evaluation(
        generation=1,
        candidate=3,
        current=2,
        metric=Metric.AVERAGE_PRECISION,
        select=PartScores(n=40, models={"candidate": SCORES, "current": SCORES}, candidate_minus_current=SUMS),
    ),
    Kind.DATA_QUALITY: DataQuality(
        verdict="warn",
        samples=1200,
        matured=1150,
        features=(FeatureQuality(feature="humidity", missing=1.0, out_of_range=0.0),),
        findings=(QualityFinding(check=QualityCheck.LABEL_LAG, verdict="warn", value=0.75),),
        problems={DataProblem.BAD_QUALITY: 6},
    ),
    Kind.LAST_UPDATE: LastUpdate(
        id=UPDATE_MANIFEST.id,
        round_number=1,
        base=vector_sha256(VECTOR),
        result="accepted",
        num_examples=720,
        num_steps=100,
        payload_bytes=len(UPDATE),
        train_seconds=0.5,
    ),
}


def golden_bytes() -> dict[str, bytes]:
    """File name to bytes: every JSON topic, every encoding, a chunk, an update, a skeleton and a version's file."""
    envelope = Envelope("solder-defect", "berlin", "0a1b2c3d", 7)
    files = {f"{kind.name.lower()}.json": seal(envelope, body) for kind, body in BODIES.items()}
    info = TEMPLATE.version_info(2, 1, LINEAGE)
    return {
        **files,
        **{f"{name}.bin": way.encode(ELEMENTS) for name, way in ENCODINGS.items()},
        "chunk.msgpack": encode_chunk(chunk_of(UPDATE, UPDATE_MANIFEST, 0)),
        "update.msgpack": UPDATE,
        "skeleton.onnx": TEMPLATE.skeleton,
        "version.onnx": TEMPLATE.file(VECTOR, info),
    }
