"""Each reason code that a participant can meet, on a receipt, through the whole path from its bytes to its topic.

`contract`, `policy`, `budget`, `stale` and those of enrolment belong to what is not asked for here: a participant with
another contract is never asked, so what it sends answers to another code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from broker_bridge.memory import MemoryBroker
from broker_bridge.outgoing import Outgoing
from tests.aggregator.test_service import history, is_final, make_config, running, sync
from tests.support.scripted_participant import ScriptedParticipant
from uns_topics.codes import Code
from uns_topics.plan import Tolerances
from uns_topics.presence import ParticipantState
from uns_topics.transfers import TransferManifest, make_manifest
from uns_topics.update import UpdateHeader, encode_update, pack_groups


class Sender:
    """Sends updates of one participant with anything wrong, and hears the answer."""

    def __init__(self, who: ScriptedParticipant) -> None:
        self.who = who

    def update(self, delta: Callable[[np.ndarray], Any] | None = None, encoding: str = "f32", **changes: Any) -> bytes:
        who = self.who
        assert who.plan is not None
        assert who.round is not None
        table, current = who.plan.template.table, who.round
        values = np.full(table.size, 0.01 + 0.001 * ord(who.name[0]), np.float32)
        if delta is not None:
            values = np.asarray(delta(values), np.float32)
        groups, body = pack_groups(np.nan_to_num(values, posinf=1.0), table, encoding)
        if not np.isfinite(values).all():
            body = np.full(len(body) // 4, np.inf, np.float32).tobytes()
        header: dict[str, Any] = {
            "federation": "tiny",
            "participant": who.name,
            "round_number": current.round_number,
            "attempt": current.attempt,
            "base": current.base_sha256,
            "generation": current.generation,
            "num_examples": 50,
            "num_steps": 1,
            "groups": groups,
        }
        body = changes.pop("body", body)
        return encode_update(UpdateHeader(**{**header, **changes}), body)

    def manifest(self, content: bytes, **changes: Any) -> TransferManifest:
        current = self.who.round
        assert current is not None
        said: dict[str, Any] = {
            "base": current.base_sha256,
            "round_number": current.round_number,
            "attempt": current.attempt,
        }
        return make_manifest(content, changes.pop("kind", "update"), **{**said, **changes})

    async def answer(self, content: bytes, **manifest: Any) -> Code | str | None:
        """The code of the receipt; `accepted` where it has none."""
        outgoing = Outgoing(content, self.manifest(content, **manifest))
        return await self.send(outgoing)

    async def send(self, outgoing: Outgoing) -> Code | str | None:
        who, answered = self.who, []

        def is_answered() -> bool:
            answered[:] = [r for r in who.receipts if r.id == outgoing.manifest.id and r.result != "missing"]
            return bool(answered)

        who.sent[outgoing.manifest.id] = outgoing
        await who._perform(outgoing, outgoing.start(0.0, 0.5))
        while not answered:  # as any sender does: what was on its way while the state changed is asked for again
            try:
                await who.until(is_answered, timeout_s=1.0)
            except TimeoutError:
                await who.repeat_manifest(outgoing)
        return answered[-1].code or answered[-1].result


@sync
async def test_every_code_reaches_its_participant(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        tolerances = Tolerances(rounds=1, max_delta_norm=5.0, max_examples=1000)
        await stack.enter_async_context(running(broker, make_config(tmp_path, tolerances=tolerances)))
        a, b = [await stack.enter_async_context(ScriptedParticipant(broker.connector(), name)) for name in "ab"]
        a.trains = b.trains = False
        await a.until(lambda: a.round is not None and a.round.base_sha256 in a.held)
        await b.until(lambda: b.round is not None and b.round.base_sha256 in b.held)
        s = Sender(a)
        assert a.round is not None
        current = a.round
        good = s.update()
        met: list[Code | str | None] = []

        async def expect(code: Code, content: bytes, **manifest: Any) -> None:
            met.append(await s.answer(content, **manifest))
            assert met[-1] == code

        await expect(Code.WRONG_FEDERATION, s.update(federation="other"))
        await expect(Code.GENERATION, s.update(generation=9))
        await expect(Code.WRONG_ROUND, s.update(num_steps=2), round_number=9)
        await expect(Code.WRONG_ROUND, s.update(attempt=9), attempt=9)
        await expect(Code.WRONG_BASE, s.update(base="0" * 64), base="0" * 64)
        await expect(Code.SCHEMA, s.update(num_steps=3), kind="model")
        await expect(Code.SCHEMA, bytes([0x93]) + msgpack.packb({"v": 1, "surprise": 1}) + good[300:])
        await expect(Code.UNDECODABLE, b"\x93" + b"\xc1" * 100)
        await expect(Code.UNDECODABLE, good[: len(good) // 2])
        await expect(Code.VERSION, good.replace(b"\xa1v\x01", b"\xa1v\x02", 1))
        await expect(Code.OVERSIZED, good + bytes(200_000))
        await expect(Code.INTEGRITY, s.update(participant="b"))
        await expect(Code.ENCODING, s.update(encoding="f16"))
        assert a.plan is not None
        groups, body = pack_groups(np.ones(a.plan.template.table.size, np.float32), a.plan.template.table, "f32")
        fewer = groups[0].model_copy(update={"bytes": groups[0].bytes - 4, "elements": groups[0].elements - 1})
        await expect(Code.SHAPE, s.update(groups=(fewer, *groups[1:]), body=body[:-4]))
        await expect(Code.NOT_FINITE, s.update(lambda v: v * np.nan))
        await expect(Code.NORM, s.update(lambda v: v * 1e6))
        await expect(Code.ZERO, s.update(lambda v: v * 0))
        await expect(Code.WEIGHT, s.update(num_examples=0))
        await expect(Code.WEIGHT, s.update(num_examples=1001))

        # Chunks that are not what the manifest lists are refused before the whole is looked at.
        lying = s.manifest(s.update(num_steps=4))
        lying = lying.model_copy(update={"chunks": ("0" * 64,) * len(lying.chunks)})
        met.append(await s.send(Outgoing(s.update(num_steps=4), lying)))
        assert met[-1] == Code.INTEGRITY

        # A stranger, and one on hold.
        x = await stack.enter_async_context(ScriptedParticipant(broker.connector(), "x"))
        x.can_train = False
        await x.until(lambda: x.plan is not None and x.round is not None)
        met.append(await Sender(x).answer(Sender(x).update()))
        assert met[-1] == Code.UNKNOWN_PARTICIPANT
        # Whatever was rejected, the right one still counts; a second one, and one that was copied, don't.
        assert await s.answer(good) == "accepted"
        await expect(Code.DUPLICATE, s.update(num_steps=5))
        copy = Sender(b)
        met.append(await copy.answer(copy.update(lambda v: np.full(v.size, 0.01 + 0.001 * ord("a")))))
        assert met[-1] == Code.COPIED
        topic, payload, qos, retain = b._status(ParticipantState.HOLD)
        await b._link.publish(topic, payload, qos=qos, retain=retain)
        met.append(await copy.answer(copy.update(num_steps=2)))
        assert met[-1] == Code.HOLD
        await b.say_status()
        assert await copy.answer(copy.update()) == "accepted"
        await a.until(lambda: is_final(a))
        await expect(Code.LATE, s.update(num_steps=6))
        assert a.round.round_number == current.round_number
        later = {Code.CONTRACT, Code.POLICY, Code.BUDGET, Code.STALE, Code.SIGNATURE, Code.REPLAY, Code.REVOKED}
        assert set(Code) - set(met) == later
        assert [p.outcome for p in history(broker).rounds[0].participants] == ["accepted", "accepted"]
