"""From a model file and a configuration to the plan of a generation, or to the reasons why there is none. Pure."""

from __future__ import annotations

from aggregator.config import AggregatorConfig
from aggregator.gate import Limits
from aggregator.state import Rules
from aggregator.strategies import buffer_of, carries_control, local_training, strategy_problems
from uns_topics.contract import Contract
from uns_topics.controls import full_bytes, max_control_norm
from uns_topics.encodings import ENCODINGS
from uns_topics.envelope import MAX_JSON_BYTES, WIRE_VERSION, Envelope, seal
from uns_topics.plan import Plan, TemplateManifest
from uns_topics.scope import number_of_classes
from uns_topics.standardisation import DEVIATION_TENSOR, MEAN_TENSOR
from uns_topics.template import Template
from uns_topics.tensors import Role
from uns_topics.transfers import MAX_CHUNKS, MIN_CHUNK_BYTES, WRAPPING_BYTES, make_manifest


class PlanError(ValueError):
    """The configuration and the model file make no plan; one line per reason."""


def build_plan(
    template: Template,
    config: AggregatorConfig,
    generation: int,
    chunk_bytes: int | None = None,
    *,
    contract: Contract | None = None,
) -> Plan:
    """The plan of a generation.

    Args:
        chunk_bytes: what the broker was found to take, where that is less than the configuration says.
        contract: of the same meaning as the template's, with the words and thresholds of today.
    Raises: PlanError: every reason at once.
    """
    if problems := _problems(template, config):
        raise PlanError("\n".join(problems))
    size = chunk_bytes_of(template, config, chunk_bytes)
    plan = Plan(
        generation=generation,
        contract=contract or template.contract,
        contract_hash=template.contract.meaning_sha256,
        template=TemplateManifest(
            sha256=template.sha256,
            network=template.info.network,
            table=template.table,
            skeleton=make_manifest(template.skeleton, "skeleton", size),
        ),
        strategy=config.strategy,
        training=local_training(config.strategy, config.training),
        encodings=config.encodings,
        control=carries_control(config.strategy),
        tolerances=config.tolerances,
        chunk_bytes=size,
        heartbeat_s=config.heartbeat_s,
    )
    envelope = Envelope(config.federation, config.federation, "00000000", 2**31, WIRE_VERSION)
    if (length := len(seal(envelope, plan))) > MAX_JSON_BYTES:
        raise PlanError(
            f"the plan takes {length} bytes of JSON, more than {MAX_JSON_BYTES}: the template has "
            f"{len(template.table.tensors)} tensors; merge small ones"
        )
    return plan


def chunk_bytes_of(template: Template, config: AggregatorConfig, limit: int | None = None) -> int:
    """Bytes of a chunk's body: as configured, raised until a manifest can list every chunk, at most `limit`.

    Raises: PlanError: the broker takes less than that.
    """
    whole = full_bytes(template.table, control=carries_control(config.strategy))
    largest = max(len(template.skeleton), whole, limits(template, config).max_bytes)
    needed = max(MIN_CHUNK_BYTES, -(-largest // MAX_CHUNKS))
    if limit is not None and limit < needed:
        raise PlanError(
            f"the broker takes messages of about {limit + WRAPPING_BYTES} bytes, and this federation needs "
            f"{needed + WRAPPING_BYTES}: raise the broker's limit (Mosquitto: message_size_limit, max_packet_size)"
        )
    wanted = max(config.chunk_bytes, needed)
    return wanted if limit is None else min(wanted, limit)


def limits(template: Template, config: AggregatorConfig) -> Limits:
    """What the gate lets through."""
    has_control = carries_control(config.strategy)
    return Limits(
        table=template.table,
        encodings=config.encodings,
        max_norm=config.tolerances.max_delta_norm,
        max_examples=config.tolerances.max_examples,
        max_steps=config.training.steps,
        max_control_norm=max_control_norm(config.training, config.tolerances) if has_control else None,
    )


def rules_of(plan: Plan, config: AggregatorConfig) -> Rules:
    """The part of the plan that rounds follow."""
    return Rules(
        federation=config.federation,
        generation=plan.generation,
        contract_hash=plan.contract_hash,
        tolerances=plan.tolerances,
        training=plan.training,
        encodings=plan.encodings,
        classes=number_of_classes(plan.contract),
        heartbeat_s=plan.heartbeat_s,
        buffer=buffer_of(plan.strategy),
        allowed=config.participants,
    )


def meaning_of(template: Template, config: AggregatorConfig) -> dict[str, object]:
    """What makes a generation: if any of it changes, another one begins. Everything in it is JSON."""
    return {
        "template": template.sha256,
        "contract": template.contract.meaning_sha256,
        "strategy": config.strategy.model_dump(mode="json"),
        "encodings": list(config.encodings),
    }


def _problems(template: Template, config: AggregatorConfig) -> list[str]:
    found = []
    contract, table = template.contract, template.table
    if contract.federation != config.federation:
        found.append(f"model: its contract is of federation {contract.federation}, not {config.federation}")
    problems = strategy_problems(config.strategy, config.training, config.tolerances)
    found.extend(f"strategy: {problem}" for problem in problems)
    if unknown := [name for name in config.encodings if name not in ENCODINGS]:
        found.append(f"encodings: no {', '.join(unknown)}; known: {', '.join(ENCODINGS)}")
        return found
    if config.downlink is not None and config.downlink not in ENCODINGS:
        found.append(f"downlink: no encoding {config.downlink}; known: {', '.join(ENCODINGS)}")
    if not table.elements(Role.WEIGHT):
        found.append("model: its template has no tensor of role weight, so there is nothing to learn")
    shape = (contract.slots, len(contract.features))
    tensors = {tensor.name: tensor for tensor in table.tensors}
    for name in (MEAN_TENSOR, DEVIATION_TENSOR):
        if name not in tensors:
            found.append(f"model: its template has no tensor {name}")
        elif tensors[name].shape != shape or tensors[name].role is not Role.FROZEN:
            found.append(f"model: tensor {name} must be frozen and of shape {shape}, not {tensors[name].shape}")
    if config.participants is not None and len(config.participants) < config.tolerances.quorum:
        found.append(
            f"participants: {len(config.participants)} let in, fewer than tolerances.quorum {config.tolerances.quorum}"
        )
    if config.tolerances.max_cohort < config.tolerances.quorum:
        found.append("tolerances: max_cohort is below quorum, so no round could end")
    return found
