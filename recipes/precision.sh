#!/bin/sh
# The precision table from a clean clone: every claim, measured on this machine, with its report.
# A killed run continues where it stopped. About 15 minutes of CPU time on one server core without a GPU.
set -eu
make .venv/bin/.painting
RUN=${RUN:-${STARRY_HOME:-$HOME/.starrynight}/lab/precision}

# 1. Firefly and its wide twin in every format. SEEDS=10 paints 100 pictures of Firefly. int8 is for CPUs that multiply 8-bit
#    integers fast (starry doctor); elsewhere: FORMATS=float16,float16-folded,bfloat16,float8
.venv/bin/starry lab run --model firefly --model firefly-wide --seeds "${SEEDS:-2}" \
  --formats "${FORMATS:-float16,float16-folded,bfloat16,float8,int8}" -o "$RUN"

# 2. The report as HTML, Markdown and JSON, from the raw results alone.
.venv/bin/starry lab report "$RUN"

# 3. The precision to use on this machine.
.venv/bin/starry lab advise firefly
echo "✦ $RUN/report.html"
