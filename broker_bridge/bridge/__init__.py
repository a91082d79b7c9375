"""The bridge: between a plant's broker and the next zone, the one place where something can leave."""
