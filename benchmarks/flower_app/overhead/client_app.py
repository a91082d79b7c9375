"""A participant: moves every parameter by a little at random, and evaluates nothing."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, _: Context) -> Message:
    """All parameters, as Flower sends them."""
    values = message.content["arrays"]["w"].numpy()
    values = values + np.random.default_rng().normal(0, 1e-3, values.shape).astype(np.float32)
    metrics = MetricRecord({"num-examples": 120, "loss": 0.5})
    content = RecordDict({"arrays": ArrayRecord({"w": Array(values)}), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """A loss."""
    loss = float(message.content["arrays"]["w"].numpy()[0])
    return Message(content=RecordDict({"metrics": MetricRecord({"num-examples": 120, "loss": loss})}), reply_to=message)
