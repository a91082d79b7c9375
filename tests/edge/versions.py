"""Versions, plans and samples of the tiny template, as edges meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from broker_bridge.session import Message
from edge.effects import LabelSet, SampleReady
from edge.models import Model, open_version
from edge.signal_map import SignalMap
from tests.support.tiny_template import tiny_template, tiny_vector
from uns_topics.contract import Contract
from uns_topics.controls import join_full
from uns_topics.golden import golden_outputs
from uns_topics.plan import Plan, Strategy, TemplateManifest, Tolerances, Training
from uns_topics.rounds import ClientConfig, RoundAnnouncement, VersionManifest
from uns_topics.template import Lineage, Template
from uns_topics.tensors import Role, Vector, vector_bytes, vector_sha256
from uns_topics.transfers import KIB, make_manifest

TEMPLATE = tiny_template()
CONTRACT = TEMPLATE.contract
LINE = "acme/berlin/smt/line1"
NARROW = Contract.model_validate(CONTRACT.model_dump() | {"features": [CONTRACT.features[1].model_dump()]})
"""Another generation's: the second feature alone."""
MAP = SignalMap.model_validate(
    {
        "instance": "acme/berlin/smt/{line}",
        "sources": [
            {
                "topic": "acme/berlin/smt/{line}/spi",
                "form": "flat",
                "key": "board",
                "features": [{"feature": f"x{i}", "field": f"x{i}", "unit": ""} for i in range(2)],
            }
        ],
    }
)


def board(index: int, instance: str = LINE, at: float | None = None, **values: Any) -> Message:
    time_s = 1_700_000_000 + 30 * index if at is None else at
    body = {"timestamp": round(time_s * 1000), "board": f"B{index}", "x0": index % 10, "x1": 3.5} | values
    return Message(f"{instance}/spi", json.dumps(body).encode())


def vector_of(version: int) -> Vector:
    return tiny_vector(TEMPLATE, version)


def control_of(version: int) -> Vector:
    """The server's control variate of a version."""
    size = TEMPLATE.table.elements(Role.WEIGHT)
    return np.random.default_rng(version).normal(0, 0.5, size).astype(np.float32)


def controlled(version: int) -> VersionManifest:
    """A version of a plan with control variates."""
    control = control_of(version)
    full = make_manifest(join_full(vector_of(version), control), "model", 15 * KIB, version=version)
    return manifest_of(version).model_copy(update={"full": full, "control": vector_sha256(control)})


def manifest_of(version: int, generation: int = 1) -> VersionManifest:
    lineage = Lineage(origin="round", parent=max(0, version - 1), round_number=version)
    return version_manifest(TEMPLATE, vector_of(version), version, generation, lineage)


def version_manifest(
    template: Template, vector: Vector, version: int, generation: int, lineage: Lineage
) -> VersionManifest:
    """A version of any template, with the outputs that its file gives."""
    file = template.file(vector, template.version_info(version, generation, lineage))
    return VersionManifest(
        version=version,
        sha256=vector_sha256(vector),
        generation=generation,
        epoch=1,
        lineage=lineage,
        full=make_manifest(vector_bytes(vector), "model", 15 * KIB, version=version),
        golden=tuple(golden_outputs(template, file)),
    )


def model_of(version: int) -> Model:
    return open_version(TEMPLATE, vector_of(version), manifest_of(version))


def template_manifest(template: Template) -> TemplateManifest:
    return TemplateManifest(
        sha256=template.sha256,
        network=template.info.network,
        table=template.table,
        skeleton=make_manifest(template.skeleton, "skeleton", 15 * KIB),
    )


def plan_of(generation: int = 1) -> Plan:
    return Plan(
        generation=generation,
        contract=CONTRACT,
        contract_hash=CONTRACT.meaning_sha256,
        template=template_manifest(TEMPLATE),
        strategy=Strategy(),
        training=Training(steps=5),
        encodings=("f32",),
        tolerances=Tolerances(),
    )


def round_of(number: int, base: int, cohort: tuple[str, ...] = ("berlin",)) -> RoundAnnouncement:
    return RoundAnnouncement(
        round_number=number,
        attempt=1,
        epoch=1,
        state="open",
        base=base,
        base_sha256=vector_sha256(vector_of(base)),
        generation=1,
        cohort=cohort,
        client=ClientConfig(training=Training(steps=5), encoding="f32", class_weights=(1.0, 3.0)),
        seed=number,
        seconds_left=60,
    )


def sample(index: int, value: float = 5.0, instance: str = LINE) -> SampleReady:
    """Board number `index`, half a minute after the one before."""
    time_s = 1_700_000_000.0 + 30 * index
    values = np.array([value, value / 2], np.float32)
    return SampleReady(instance, f"B{index}", time_s, time_s, "", "", 0, values, time_s + 60)


def label(index: int, value: float, instance: str = LINE) -> LabelSet:
    return LabelSet(instance, f"B{index}", value, "aoi", 0, 1_700_000_000.0 + 30 * index + 5, 60)


def history(count: int, value: Callable[[int], float] = lambda i: float(i % 10)) -> list[SampleReady | LabelSet]:
    """Boards with their verdicts; every fifth is bad."""
    samples = [sample(i, value(i)) for i in range(count)]
    return [*samples, *(label(i, float(i % 5 == 0)) for i in range(count))]
