"""Ready-made files for the programs that read inference, made from a contract and an edge's configuration. Pure."""
