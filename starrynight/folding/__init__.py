"""Range folding of a whole pipeline.

calibrate   → trace it while it paints, solve for powers of two, certify on held-out prompts
cache       → finished folds, and an unfinished calibration that can be resumed
export      → ``starry fold``: a folded checkpoint that any tool can load
single_file → where each weight of a single file goes in diffusers' layout
"""
