"""Sparkplug B payloads (Eclipse Sparkplug 3.0.0, chapter 6.4), on the protobuf runtime alone. Pure.

Field numbers and datatypes are facts of the specification. The schema is built at import: no generated code that is
tied to one protobuf version. It names only what is read. The rest (DataSets, Templates, nested property sets, bodies,
extensions) passes as bytes or unknown fields that nothing looks into, so that no payload nests deeper than its
properties.

Sizes are looked at before anything is built: metrics and properties travel as bytes inside the outer message, and are
parsed one by one once their number and length are known to be within the limits. Texts are declared as bytes too:
what the runtime makes of one that is no UTF-8 depends on its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

NAMESPACE = "spBv1.0"
MAX_PAYLOAD_BYTES = 1024 * 1024
"""A birth names everything that a device has; a larger one is refused before it is parsed."""
MAX_METRICS = 10_000
MAX_NAME_BYTES = 1024
MAX_PROPERTIES_BYTES = 16 * 1024
"""Properties of one metric."""
REBIRTH = "Node Control/Rebirth"
"""The command that every edge node answers with its births (section 6.4.6)."""
BDSEQ = "bdSeq"
"""The metric that ties an NDEATH to its NBIRTH."""
QUALITY, UNIT = "Quality", "engUnit"

Value = float | int | bool | str | None


class DataType(IntEnum):
    """Datatypes whose values are one number, truth value or text (section 6.4.16); all others are skipped."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15


class MessageType(StrEnum):
    """What an edge node says, and what is said to it (section 4.1)."""

    NBIRTH = "NBIRTH"
    NDATA = "NDATA"
    NDEATH = "NDEATH"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDATA = "DDATA"
    DDEATH = "DDEATH"


BIRTHS = (MessageType.NBIRTH, MessageType.DBIRTH)
DEATHS = (MessageType.NDEATH, MessageType.DDEATH)


class SparkplugError(ValueError):
    """A payload that can't be used. Attributes: code: `oversized` or `undecodable`. The text never repeats it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it stands in a payload.

    Attributes:
        name, alias: a birth has the name, data one of the two. timestamp_ms: None where only the payload has one.
        datatype: as its number, None where only the birth has it; `typed_value` then reads the value by that.
        value: None is null. skipped: it has a value of a kind that is not decoded.
        properties: those that are one number, truth value or text; integers by their type.
    """

    name: str | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: int | None = None
    value: Value = None
    is_historical: bool = False
    properties: Mapping[str, Value] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """What one message says. seq: 0-255; None in an NDEATH and in commands."""

    timestamp_ms: int | None = None
    metrics: tuple[Metric, ...] = ()
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class SparkplugTopic:
    """`spBv1.0/<group>/<type>/<node>[/<device>]` (section 4.1)."""

    group: str
    kind: MessageType
    node: str
    device: str | None = None

    @classmethod
    def parse(cls, text: str) -> SparkplugTopic | None:
        """None where it is none: STATE, an unknown type, a type of nodes with a device or of devices without."""
        segments = text.split("/")
        if len(segments) not in (4, 5) or segments[0] != NAMESPACE:
            return None
        try:
            kind = MessageType(segments[2])
        except ValueError:
            return None
        device = segments[4] if len(segments) == 5 else None
        return cls(segments[1], kind, segments[3], device) if kind.value[0] == "ND"[device is not None] else None

    def __str__(self) -> str:
        text = f"{NAMESPACE}/{self.group}/{self.kind.value}/{self.node}"
        return text if self.device is None else f"{text}/{self.device}"


def state_topic(host: str) -> str:
    """Where a host application says whether it is there (section 4.1.5)."""
    return f"{NAMESPACE}/STATE/{host}"


def state_payload(online: bool, timestamp_ms: int) -> bytes:
    """A host's STATE: JSON, retained; its birth has the timestamp of its will (section 6.4.27)."""
    return f'{{"online":{"true" if online else "false"},"timestamp":{timestamp_ms}}}'.encode()


def rebirth_request(timestamp_ms: int) -> bytes:
    """The payload of an NCMD that asks a node for its births."""
    metric = Metric(REBIRTH, timestamp_ms=timestamp_ms, datatype=DataType.BOOLEAN, value=True)
    return encode_payload(Payload(timestamp_ms, (metric,)))


def decode_payload(raw: bytes) -> Payload:
    """Read a payload. Raises: SparkplugError: over a limit, no protobuf, text that is no UTF-8."""
    if len(raw) > MAX_PAYLOAD_BYTES:
        raise SparkplugError("oversized", f"{len(raw)} bytes, more than {MAX_PAYLOAD_BYTES}")
    try:
        message = _PAYLOAD.FromString(raw)
        if len(message.metrics) > MAX_METRICS:
            raise SparkplugError("oversized", f"{len(message.metrics)} metrics, more than {MAX_METRICS}")
        metrics = tuple([_metric(one) for one in message.metrics])
        return Payload(_optional(message, "timestamp"), metrics, _optional(message, "seq"))
    except DecodeError:
        raise SparkplugError("undecodable", "no Sparkplug B payload") from None
    except UnicodeDecodeError:
        raise SparkplugError("undecodable", "a text that is not UTF-8") from None


def encode_payload(payload: Payload) -> bytes:
    """Write a payload; a value's field follows its datatype, without one its Python type. Skipped metrics are null."""
    message = _PAYLOAD(timestamp=payload.timestamp_ms, seq=payload.seq)
    for metric in payload.metrics:
        one = _METRIC(
            name=metric.name.encode() if metric.name is not None else None, alias=metric.alias,
            timestamp=metric.timestamp_ms, datatype=metric.datatype, is_historical=metric.is_historical or None,
        )  # fmt: skip
        _put_value(one, metric.value, metric.datatype)
        if metric.properties:
            properties = _PROPERTIES(keys=[key.encode() for key in metric.properties])
            for value in metric.properties.values():
                entry = _PROPERTY(type=_property_type(value))
                _put_value(entry, value, entry.type)
                properties.values.append(entry.SerializeToString())
            one.properties = properties.SerializeToString()
        message.metrics.append(one.SerializeToString())
    raw: bytes = message.SerializeToString()
    return raw


def typed_value(value: Value, datatype: int | None) -> Value:
    """A value by its datatype: signed integers travel as two's complement in unsigned fields (section 6.4.16).

    Only the datatype's own bits count: a short integer is found both sign-extended to 32 bits and not. A value that
    doesn't go with its datatype is handed on as it is.
    """
    bits = _SIGNED_BITS.get(datatype) if datatype is not None else None
    if bits is None or type(value) is not int:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _metric(raw: bytes) -> Metric:
    message = _METRIC.FromString(raw)
    if len(message.name) > MAX_NAME_BYTES:
        raise SparkplugError("oversized", f"a name of {len(message.name)} bytes, more than {MAX_NAME_BYTES}")
    datatype = _optional(message, "datatype")
    which = message.WhichOneof("value")
    value: Value = None
    skipped = False
    if which is not None and not message.is_null:
        skipped = which in _SKIPPED or (datatype is not None and datatype > _LAST_TYPE)
        value = None if skipped else _value(message, which, datatype)
    return Metric(
        str(message.name, "utf-8") or None,
        _optional(message, "alias"),
        _optional(message, "timestamp"),
        datatype,
        value,
        message.is_historical,
        _properties(message.properties) if message.properties else _NO_PROPERTIES,
        skipped,
    )


def _properties(raw: bytes) -> dict[str, Value]:
    if len(raw) > MAX_PROPERTIES_BYTES:
        raise SparkplugError("oversized", f"properties of {len(raw)} bytes, more than {MAX_PROPERTIES_BYTES}")
    message = _PROPERTIES.FromString(raw)
    found: dict[str, Value] = {}
    for key, content in zip(message.keys, message.values, strict=False):  # as many as have both
        entry = _PROPERTY.FromString(content)
        which = entry.WhichOneof("value")
        if which is not None:
            found[str(key, "utf-8")] = None if entry.is_null else _value(entry, which, entry.type)
    return found


def _value(message: Any, which: str, datatype: int | None) -> Value:
    value = getattr(message, which)
    return str(value, "utf-8") if which == "string_value" else typed_value(value, datatype)


def _optional(message: Any, name: str) -> int | None:
    return getattr(message, name) if message.HasField(name) else None


def _property_type(value: Value) -> DataType:
    """Whole numbers are Int32 where they fit, as the specification has it for `Quality`."""
    if type(value) is int:
        return DataType.INT32 if -(2**31) <= value < 2**31 else DataType.INT64
    if type(value) is bool:
        return DataType.BOOLEAN
    return DataType.DOUBLE if type(value) is float else DataType.STRING


def _put_value(message: Any, value: Value, datatype: int | None) -> None:
    if value is None:
        message.is_null = True
    elif type(value) is bool:
        message.boolean_value = value
    elif type(value) is str:
        message.string_value = value.encode()
    elif datatype == DataType.FLOAT:
        message.float_value = value
    elif type(value) is float or datatype == DataType.DOUBLE:
        message.double_value = value
    elif datatype in _INT_VALUE:
        message.int_value = int(value) & 0xFFFF_FFFF
    else:
        message.long_value = int(value) & 0xFFFF_FFFF_FFFF_FFFF


_LAST_TYPE = int(max(DataType))
_SIGNED_BITS: dict[int, int] = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_INT_VALUE = {DataType.INT8, DataType.INT16, DataType.INT32, DataType.UINT8, DataType.UINT16, DataType.UINT32}
_SKIPPED = {"bytes_value", "dataset_value", "template_value", "extension_value"}
_NO_PROPERTIES: dict[str, Value] = {}

_F = descriptor_pb2.FieldDescriptorProto
_Fields = tuple[tuple[str, int, int], ...]
_SCALARS: tuple[tuple[str, int], ...] = (
    ("int_value", _F.TYPE_UINT32), ("long_value", _F.TYPE_UINT64), ("float_value", _F.TYPE_FLOAT),
    ("double_value", _F.TYPE_DOUBLE), ("boolean_value", _F.TYPE_BOOL), ("string_value", _F.TYPE_BYTES),
)  # fmt: skip
"""Fields of a value in the order of their numbers, which start at 10 in a metric and at 3 in a property."""


def _describe(file: Any, name: str, plain: _Fields, repeated: _Fields = (), value: _Fields = ()) -> None:
    message = file.message_type.add(name=name)
    for label, fields in ((_F.LABEL_OPTIONAL, plain + value), (_F.LABEL_REPEATED, repeated)):
        for field_name, number, kind in fields:
            message.field.add(name=field_name, number=number, type=kind, label=label)
    if value:
        message.oneof_decl.add(name="value")
        for one in message.field:
            if one.name in {field_name for field_name, _, _ in value}:
                one.oneof_index = 0


def _schema() -> tuple[type[Message], ...]:
    """Payload, Metric, PropertySet and PropertyValue (section 6.4.1), each inner one as bytes in the outer."""
    file = descriptor_pb2.FileDescriptorProto(name="headgate/sparkplug.proto", package="headgate", syntax="proto2")
    _describe(
        file, "Payload", (("timestamp", 1, _F.TYPE_UINT64), ("seq", 3, _F.TYPE_UINT64)),
        (("metrics", 2, _F.TYPE_BYTES),),
    )  # fmt: skip
    _describe(
        file,
        "Metric",
        (
            ("name", 1, _F.TYPE_BYTES), ("alias", 2, _F.TYPE_UINT64), ("timestamp", 3, _F.TYPE_UINT64),
            ("datatype", 4, _F.TYPE_UINT32), ("is_historical", 5, _F.TYPE_BOOL), ("is_null", 7, _F.TYPE_BOOL),
            ("properties", 9, _F.TYPE_BYTES),
        ),
        value=(
            *((name, number, kind) for number, (name, kind) in enumerate(_SCALARS, start=10)),
            ("bytes_value", 16, _F.TYPE_BYTES), ("dataset_value", 17, _F.TYPE_BYTES),
            ("template_value", 18, _F.TYPE_BYTES), ("extension_value", 19, _F.TYPE_BYTES),
        ),
    )  # fmt: skip
    _describe(file, "PropertySet", (), (("keys", 1, _F.TYPE_BYTES), ("values", 2, _F.TYPE_BYTES)))
    _describe(
        file, "PropertyValue", (("type", 1, _F.TYPE_UINT32), ("is_null", 2, _F.TYPE_BOOL)),
        value=tuple((name, number, kind) for number, (name, kind) in enumerate(_SCALARS, start=3)),
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    names = ("Payload", "Metric", "PropertySet", "PropertyValue")
    return tuple(message_factory.GetMessageClass(pool.FindMessageTypeByName(f"headgate.{name}")) for name in names)


_PAYLOAD: Any
_METRIC: Any
_PROPERTIES: Any
_PROPERTY: Any
_PAYLOAD, _METRIC, _PROPERTIES, _PROPERTY = _schema()
