"""Numerics: float16's fidelity with bfloat16's safety, for any ``nn.Module`` and a callable that exercises it.

precision → which format each component runs in, and why (pure; no torch)
device    → what this machine is and how fast it multiplies in each format
trace     → the exponent equations and the measured ranges of a run
solve     → integer exponents that bring every 16-bit tensor inside float16
fold      → apply them, in memory or to a checkpoint; scale a LoRA with them
islands   → the smallest modules that stay float32 around what cannot be folded
emulate   → a GPU's float16 (and float8) on any machine
guard     → cheap finite checks that name the stage, step, module and op

This room knows nothing of prompts, painters or galleries. Importing the package imports none of these files.
"""
