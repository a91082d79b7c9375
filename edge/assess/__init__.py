"""What a plant's messages are worth to a federation, found out before anything is learnt from them. Read-only."""
