"""Range folding of a whole pipeline: calibrate, cache, write a folded checkpoint."""
