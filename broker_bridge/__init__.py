"""How messages travel and what may leave: sessions with brokers, the link that keeps one open, transfers."""
