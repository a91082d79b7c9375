"""A bare echo: publishes what it reads, and nothing else; paho's own loop, QoS 1 both ways."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main(url: str) -> None:
    """Until it is killed; says on stdout when it is subscribed."""
    parts = urlsplit(url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-echo")
    client.max_inflight_messages_set(1000)

    def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        client.publish("bench/back", message.payload, qos=1)

    client.on_message = on_message
    client.on_subscribe = lambda *_: print("subscribed", flush=True)
    client.connect(parts.hostname or "", parts.port or 1883)
    client.subscribe("bench/there", qos=1)
    client.loop_forever()


if __name__ == "__main__":
    main(sys.argv[1])
