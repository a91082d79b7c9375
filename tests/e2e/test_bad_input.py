"""Whatever is said on the broker, nothing ends, reasons are counted and logged, and rounds and inference go on."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from broker_bridge.config import BrokerConfig
from broker_bridge.paho_session import PahoConnector
from broker_bridge.session import Message, Session
from tests.aio import run
from tests.e2e.federation import FEDERATION, Federation, federation, signal_map
from tests.servers import Server
from uns_topics.codes import Code
from uns_topics.envelope import MAX_JSON_BYTES
from uns_topics.payloads import Writer
from uns_topics.presence import ParticipantState, ParticipantStatus
from uns_topics.rounds import Receipt, RoundAnnouncement
from uns_topics.topics import FlTopic, Kind
from uns_topics.transfers import Chunk, TransferManifest, chunk_of, encode_chunk, make_manifest

pytestmark = [pytest.mark.broker, pytest.mark.e2e, pytest.mark.timeout(120)]

PLANTS = ("berlin", "lyon")
SERIAL = "KANARIENVOGEL-4711"
"""Stands in every board's serial number."""
VERDICT = "SCHWALBENNEST-815"
"""The plant's own word for a defect."""
STRANGE = "PAPAGEI-0815"
"""A code that no signal map knows."""
VOLUMES = (97.31234567, 153.9876543)
"""Raw values of good and of bad boards."""
NOISE = (
    b"{", b"[]", b"null", b"\x00", b"\xff\xfe\xfd", b'{"v":1}', b'{"v":9' + b"9" * 400 + b"}", b'"' * 2000,
    b"[" * 20_000, b" " * (MAX_JSON_BYTES + 1), msgpack.packb({"v": 1, "id": "0" * 16, "i": 0, "n": 1, "body": b"?"}),
    b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
)  # fmt: skip
"""Malformed, oversized, truncated, foreign; the last two are msgpack that promises 4 GiB."""
DEFAULTS = {"participant": "ghost", "bridge": "ghost-bridge", "transfer": "0" * 16, "version": 1, "index": 0}


def topic(kind: Kind, federation: str = FEDERATION, **fields: Any) -> str:
    wanted = {name: fields.get(name, value) for name, value in DEFAULTS.items() if f"{{{name}}}" in kind.path}
    return str(FlTopic(federation, kind, **wanted))


def mutations(payload: bytes) -> Iterator[bytes]:
    """A valid message with one thing wrong."""
    body = json.loads(payload)
    for change in (
        {"surprise": 1}, {"v": 2}, {"federation": "elsewhere"}, {"boot": "not-hex!"}, {"sequence": -1},
        {"generation": -1}, {"generation": "1"}, {"epoch": 0}, {"birth": 0}, {"state": "asleep"}, {"version": -5},
    ):  # fmt: skip
        if change.keys() & body.keys() or "surprise" in change:
            yield json.dumps(body | change).encode()
    yield payload[:-1]
    yield payload[: len(payload) // 2]
    yield payload + b"}"
    yield re.sub(rb":\d+(\.\d+)?(?=[,}])", b":NaN", payload)
    yield re.sub(rb":\d+(\.\d+)?(?=[,}])", b":1e999", payload)
    yield payload.decode().encode("utf-16")


class Attacker:
    """Says everything that should not be said; remembers what was said by others."""

    def __init__(self, f: Federation) -> None:
        self.f = f
        self.said: set[tuple[str, bytes]] = set()
        self.heard: list[Message] = []
        self.session: Session | None = None
        self.ghost = Writer(FEDERATION, "ghost", "00000bad")
        self.fake = Writer(FEDERATION, "aggregator", "00000bad")

    @classmethod
    @asynccontextmanager
    async def of(cls, f: Federation) -> AsyncIterator[Attacker]:
        made = cls(f)
        connector = PahoConnector(BrokerConfig(url=f.server.url))
        async with connector.connect("attacker", on_message=made.heard.append) as made.session:
            await made.session.subscribe("fl/v1/#")
            yield made

    @property
    def honest(self) -> list[Message]:
        """What the services said on the fl tree."""
        return [m for m in self.heard if (m.topic, m.payload) not in self.said]

    def last(self, where: str) -> bytes:
        return next(m.payload for m in reversed(self.honest) if m.topic == where and m.payload)

    async def say(self, where: str, *payloads: bytes, retain: bool = False) -> None:
        assert self.session is not None
        self.said.update((where, payload) for payload in payloads)
        await asyncio.gather(*(self.session.publish(where, payload, retain=retain) for payload in payloads))

    async def noise(self) -> None:
        """Everything malformed on every topic, of a stranger, of a participant, and beside the tree's grammar."""
        for kind in Kind:
            for participant in ("ghost", "berlin"):
                await self.say(topic(kind, participant=participant), *NOISE)
        for strange in ("", "/", "down", "up/berlin/status/more", "up/BERLIN/status", "down/model/01/0", "down/x y/ü"):
            await self.say(f"fl/v1/{FEDERATION}/{strange}", *NOISE[:3])
        await self.say(topic(Kind.STATUS, "elsewhere"), *NOISE[:3])

    async def mutate(self) -> None:
        """What was said by the services, each with one thing wrong."""
        seen = {m.topic: m.payload for m in self.honest if m.payload and FlTopic.parse(m.topic).kind.form == "json"}
        for where, payload in seen.items():
            await self.say(where, *mutations(payload))
        chunks = {m.topic: m.payload for m in self.honest if FlTopic.parse(m.topic).kind.form == "binary" and m.payload}
        for where, payload in chunks.items():
            flipped = payload[:-1] + bytes([payload[-1] ^ 1])
            await self.say(where, payload[:-1], payload + b"\xc0", flipped, payload[1:])

    async def as_ghost(self) -> None:
        """Valid messages of somebody whom nobody knows."""
        plan = self.f.view.plan
        assert plan is not None
        status = ParticipantStatus(
            birth=1, state=ParticipantState.ONLINE, samples=5000, new_samples=5000, can_train=True,
            contract_hash="0" * 64, generation=plan.generation, encodings=("f32",),
        )  # fmt: skip
        await self.say(topic(Kind.STATUS), self.ghost.seal(status))
        content = b"not an update" * 100
        manifest = make_manifest(content, "update", base="0" * 64, round_number=1, attempt=1)
        await self.upload("ghost", manifest, content, self.ghost)
        huge = manifest.model_copy(update={"bytes": 2**40, "chunk_bytes": 2**30, "chunks": ("0" * 64,) * 1024})
        await self.say(topic(Kind.UPDATE_MANIFEST, transfer=huge.id), self.ghost.seal(huge))

    async def upload(self, participant: str, manifest: TransferManifest, content: bytes, writer: Writer) -> None:
        where = topic(Kind.UPDATE_MANIFEST, participant=participant, transfer=manifest.id)
        await self.say(where, writer.seal(manifest))
        for index in range(len(manifest.chunks)):
            where = topic(Kind.UPDATE_CHUNK, participant=participant, transfer=manifest.id, index=index)
            await self.say(where, encode_chunk(chunk_of(content, manifest, index)))

    async def as_aggregator(self) -> None:
        """Valid messages that an honest aggregator would never send: each must be seen through by itself."""
        plan, current = self.f.view.plan, self.f.view.current
        assert plan is not None
        contract = plan.contract.model_copy(update={"features": plan.contract.features[:1]})
        other = plan.model_copy(update={"contract": contract, "contract_hash": contract.meaning_sha256})
        await self.say(topic(Kind.PLAN), self.fake.seal(other))
        announcement = RoundAnnouncement(
            round_number=900, attempt=1, epoch=1, state="open", base=800, base_sha256="0" * 64, generation=7,
            cohort=PLANTS, client={"training": plan.training, "encoding": "f32"}, seed=1, seconds_left=60,
        )  # fmt: skip
        fits = announcement.model_copy(update={"generation": plan.generation})  # but for a base that nobody holds
        await self.say(topic(Kind.ROUND), self.fake.seal(announcement), self.fake.seal(fits))
        for chunks in ((), (0, 1, 649)):
            receipt = Receipt(id="0123456789abcdef", result="missing", chunks=chunks)
            await self.say(topic(Kind.RECEIPT, participant="berlin"), self.fake.seal(receipt))
            beyond = self.fake.seal(receipt).replace(b"649", b"99999999")
            await self.say(topic(Kind.RECEIPT, participant="berlin"), beyond)
        if current is not None:
            where = topic(Kind.MODEL_CANDIDATE)
            never = make_manifest(b"never comes" * 10, "model", version=900)
            vanishing = current.model_copy(update={"version": 900, "sha256": never.sha256, "full": never})
            same_bytes = current.model_copy(update={"version": 901})
            lying = current.model_copy(update={"version": current.version, "golden": (0.123,), "sha256": "1" * 64})
            for manifest in (vanishing, same_bytes, lying):
                await self.say(where, self.fake.seal(manifest))
            chunk = Chunk(current.full.id, 0, len(current.full.chunks), b"other bytes")
            await self.say(topic(Kind.MODEL_CHUNK, version=current.version, index=0), encode_chunk(chunk))
            where = topic(Kind.MODEL_CURRENT)
            older = current.model_copy(update={"generation": current.generation + 1, "version": 902})
            await self.say(where, self.fake.seal(older))


async def plant_noise(f: Federation, plant: str) -> None:
    """What plants say on a bad day."""
    assert f.session is not None
    path, stamp = f"acme/{plant}/smt/line1", 1_700_000_000_000
    good = {"timestamp_ms": stamp, "board": f"X-{SERIAL}", "volume": 97.0, "height": 110.0}
    bodies: list[bytes] = [
        *NOISE,
        b"\xff" * 300_000,
        b'{"timestamp_ms":1,"board":"\xff\xff"}',
        b'{"timestamp_ms":NaN,"board":"a","volume":NaN}',
        b'{"timestamp_ms":1e400,"board":"a","volume":1e400}',
        json.dumps(good | {"padding": "x" * 400_000}).encode(),
    ]
    for change in (
        {"volume": "97.0"}, {"volume": STRANGE}, {"volume": {"value": 97.0}}, {"volume": [1, 2]}, {"volume": 1e300},
        {"volume": True}, {"volume": None}, {"timestamp_ms": "yesterday"}, {"timestamp_ms": -1}, {"timestamp_ms": None},
        {"timestamp_ms": 4_102_444_800_000}, {"board": None}, {"board": ""}, {"board": {"a": 1}}, {"board": 17},
        {"board": SERIAL * 5000}, {"quality": "BAD"},
    ):  # fmt: skip
        bodies.append(json.dumps(good | change).encode())
    verdicts: list[bytes] = [*NOISE]
    for change in ({"verdict": STRANGE}, {"verdict": 7}, {"verdict": None}, {"verdict": [STRANGE]}):
        verdicts.append(json.dumps({"timestamp_ms": stamp, "board": "B1", **change}).encode())
    sends = [f.session.publish(f"{path}/spi", body) for body in bodies]
    sends += [f.session.publish(f"{path}/aoi", body) for body in verdicts]
    sends.append(f.session.publish(f"{path}/_inference/{FEDERATION}/score", b"nonsense"))
    await asyncio.gather(*sends)


async def publish_boards(f: Federation, plant: str, count: int) -> None:
    """Boards whose serials, values and verdicts would be known again wherever they turned up."""
    assert f.session is not None
    first, sends = f.boards.get(plant, 0), []
    for index in range(first, first + count):
        stamp = 1_700_000_000_000 + index * 30_000
        bad = index % 10 == 3
        board = f"{SERIAL}-{index}"
        spi = {"timestamp_ms": stamp, "board": board, "volume": VOLUMES[bad], "height": 100.5 + len(plant) + index % 5}
        aoi = {"timestamp_ms": stamp + 5000, "board": board, "verdict": VERDICT if bad else "OK"}
        for leaf, body in (("spi", spi), ("aoi", aoi)):
            sends.append(f.session.publish(f"acme/{plant}/smt/line1/{leaf}", json.dumps(body).encode()))
    f.boards[plant] = first + count
    await asyncio.gather(*sends)


async def start_edge(f: Federation, plant: str) -> None:
    """An edge whose map knows the plant's own word for a defect."""
    mapped = signal_map(plant)
    mapped["sources"][1]["label"]["codes"] = {"OK": "good", VERDICT: "defect"}
    path = f.write(f"{plant}/own-map.yaml", mapped)
    await f.start_edge(plant, signal_map=str(path))


def check_nothing_leaked(attacker: Attacker, logs: dict[str, str]) -> None:
    texts = [SERIAL, VERDICT, STRANGE, *(str(v) for v in VOLUMES), *(f"{v:.6g}" for v in VOLUMES)]
    raw = [struct.pack(form, v) for v in VOLUMES for form in ("<f", ">f", "<d", ">d")]
    raw += [struct.pack("<f", struct.unpack("<f", struct.pack("<f", v))[0]) for v in VOLUMES]
    assert len(attacker.honest) > 20
    for message in attacker.honest:
        for text in texts:
            assert text.encode() not in message.payload, f"{text} on {message.topic}"
            assert text not in message.topic
        if FlTopic.parse(message.topic).kind.form == "binary":
            assert not [value for value in raw if value in message.payload], message.topic
    for name, log in logs.items():
        for text in texts:
            assert text not in log, f"{text} in the log of {name}"


def test_nothing_that_is_said_ends_a_service_or_a_round(tmp_path: Path, base_model: Path, broker: Server) -> None:
    async def main() -> None:
        tolerances = {"rounds": 3, "grace_s": 0.5}
        async with federation(tmp_path, broker, tolerances=tolerances) as f, Attacker.of(f) as attacker:
            await attacker.noise()  # nobody is there yet
            for plant in PLANTS:
                await start_edge(f, plant)
                await f.listening(plant)
                await plant_noise(f, plant)
                await publish_boards(f, plant, 150)
            await f.start_aggregator(base_model)
            await f.until(lambda: f.view.plan, "the plan")
            await attacker.noise()
            await attacker.as_ghost()
            await f.until(lambda: f.view.round is not None, "a round")
            await attacker.as_aggregator()
            await attacker.noise()
            await attacker.mutate()
            for plant in PLANTS:
                await plant_noise(f, plant)
            await f.until(lambda: f.rests, "the last round")
            assert f.view.history is not None
            assert [s.round_number for s in f.view.history.rounds] == [1, 2, 3]
            assert {s.result for s in f.view.history.rounds} <= {"promoted", "refused"}
            for summary in f.view.history.rounds:
                assert {(p.participant, p.outcome) for p in summary.participants} == {(p, "accepted") for p in PLANTS}
            await attacker.noise()
            await attacker.mutate()
            await attacker.as_aggregator()
            current = f.view.current
            assert current is not None
            for plant in PLANTS:
                await plant_noise(f, plant)
                await f.until(lambda plant=plant: f.serves(plant, current.version), f"{plant} serves")
                before = len(f.scores(plant, current.version))
                await publish_boards(f, plant, 3)
                await f.until(
                    lambda plant=plant, n=before: len(f.scores(plant, current.version)) >= n + 3, f"scores of {plant}"
                )
            # The stranger got an answer with a reason, as the round stood when it was read.
            codes = {
                read_code(m.payload) for m in attacker.honest if m.topic == topic(Kind.RECEIPT, participant="ghost")
            }
            assert codes
            assert codes <= {Code.UNKNOWN_PARTICIPANT, Code.WRONG_ROUND, Code.LATE}
            # What plants said is counted by its reason, where people of the plant look.
            for plant in PLANTS:
                quality = json.loads(attacker.last(topic(Kind.DATA_QUALITY, participant=plant)))
                assert {"undecodable", "wrong-type", "unmapped-code", "not-finite", "no-key"} <= set(
                    quality["problems"]
                )
            logs = {name: service.log.read_text() for name, service in f.services.items()}
            for name, log in logs.items():
                assert "Traceback" not in log, f"{name}: {log}"
            for plant in PLANTS:
                assert "no envelope" in logs[plant]
                assert "unmapped-code" in logs[plant]
            assert "ignored (PayloadError" in logs["aggregator"]
            check_nothing_leaked(attacker, logs)
            for name in (*PLANTS, "aggregator"):
                assert await f.stop(name) == 0

    run(main(), timeout_s=110)
    for plant in PLANTS:
        check_problems_are_kept(tmp_path, plant)


def read_code(payload: bytes) -> str | None:
    code = json.loads(payload)["code"]
    return None if code is None else str(code)


def check_problems_are_kept(folder: Path, plant: str) -> None:
    """The plant's own people find the payloads themselves, which nobody else ever saw."""
    arguments = ["edge", "problems", "--config", str(folder / plant / "edge.yaml"), "--json"]
    shown = subprocess.run([sys.executable, "-m", "headgate", *arguments], capture_output=True, check=False)
    assert shown.returncode == 6, shown.stderr
    topics = {one["topic"]: one for one in json.loads(shown.stdout)["topics"]}
    verdicts, boards = (topics[f"acme/{plant}/smt/line1/{leaf}"] for leaf in ("aoi", "spi"))
    assert STRANGE in verdicts["bad"]["text"]
    assert {"unmapped-code", "undecodable"} <= verdicts["counts"].keys()
    assert SERIAL in boards["good"]["text"]
    assert {"undecodable", "oversized", "wrong-type", "not-finite", "no-key"} <= boards["counts"].keys()
