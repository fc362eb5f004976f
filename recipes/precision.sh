#!/bin/sh
# The precision table from a clean clone: every claim, measured on this machine, with its report.
# A killed run continues where it stopped. About 15 minutes of CPU time on one server core without a GPU.
set -eu
make .venv/bin/.painting
RUN=${RUN:-${STARRY_HOME:-$HOME/.starrynight}/lab/precision}

# 1. Firefly and its wide twin in float32, float16, folded float16, bfloat16 and float8. SEEDS=10 paints 100 pictures of Firefly.
.venv/bin/starry lab run --model firefly --model firefly-wide --seeds "${SEEDS:-2}" -o "$RUN"

# 2. The report as HTML, Markdown and JSON, from the raw results alone.
.venv/bin/starry lab report "$RUN"

# 3. The precision to use on this machine.
.venv/bin/starry lab advise firefly
echo "✦ $RUN/report.html"
