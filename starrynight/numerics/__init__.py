"""Numerics: float16's fidelity with bfloat16's safety, for any ``nn.Module`` and a callable that exercises it.

precision → which format each component runs in, and why (pure; no torch)
device    → what this machine is and how fast it multiplies in each format
rules     → what each aten op says about the scales of its tensors
trace     → the exponent equations and the measured ranges of a run
tracefile → a trace as text, to go on with later
solve     → integer exponents that bring every 16-bit tensor inside float16
islands   → the smallest modules that stay float32 around what cannot be folded
fold      → apply a plan, in memory or to a checkpoint; scale a LoRA with it
certify   → prove a plan on inputs it never saw
emulate   → a GPU's float16 (and float8) on any machine
guard     → cheap finite checks that name the stage, step, module and op
widen     → the inverse of a fold: the same function with larger numbers inside

This room knows nothing of prompts, painters or galleries. Importing the package imports none of these files.
"""
