#!/bin/sh
# The precision table from a clean clone: every claim, measured on this machine, with its page.
# Killed at any moment, it goes on where it was. One core of a server, no GPU: about a quarter of an hour of CPU time.
set -eu
make .venv/bin/.painting
RUN=${RUN:-${STARRY_HOME:-$HOME/.starrynight}/lab/precision}

# 1. Firefly and its wide twin in float32, float16, folded float16, bfloat16 and float8 (SEEDS=10: a hundred pictures of Firefly).
.venv/bin/starry lab run --model firefly --model firefly-wide --seeds "${SEEDS:-2}" -o "$RUN"

# 2. The page, the table for a README, the numbers for machines: from the raw results alone.
.venv/bin/starry lab report "$RUN"

# 3. What that means for whoever paints here.
.venv/bin/starry lab advise firefly
echo "✦ $RUN/report.html"
