"""The federation's side: rounds, gate, strategies, versions, store. A pure core inside a thin asyncio shell."""
