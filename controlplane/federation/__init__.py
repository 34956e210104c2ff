"""A federated run's worker process: Flower's strategies behind our transport, exact aggregation, durable rounds.

Flower is imported by `compat` alone, and only a run's own process imports that: `aggregate` and the spool need NumPy.
"""
