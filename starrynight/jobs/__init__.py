"""The durable queue: what is to be painted, in what order, by whom, and what became of it. See docs/api.md."""
