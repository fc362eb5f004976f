"""The durable job queue: what waits to be painted, in which order, which worker paints it, and how it ended.

docs/api.md describes it.
"""
