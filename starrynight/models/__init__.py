"""Models: find them, trust their files, load them as diffusers pipelines."""
