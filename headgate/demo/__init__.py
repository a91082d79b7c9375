"""The demo: simulated plants, one edge each, an aggregator and a broker, all as processes of their own."""
