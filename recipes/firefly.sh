#!/bin/sh
# Train Firefly from nothing to saved, judged weights within SECONDS (300 by default), on the GPU if there is one:
#
#   recipes/firefly.sh 600
#   DEVICE=cpu recipes/firefly.sh 200000
#
# Pictures are drawn beside the training. Every phase saves a checkpoint each minute in WORK: killed at any moment and
# run again, the script goes on with the time that is left. The weights come to OUT; copy them to
# starrynight/weights/firefly when the evaluation and the eye agree. docs/training.md says what each phase does.
set -eu
SECONDS_IN_ALL=${1:-300}
PYTHON=${PYTHON:-.venv/bin/python}
DEVICE=${DEVICE:-auto}
WORK=${WORK:-${STARRY_HOME:-$HOME/.starrynight}/training}
OUT=${OUT:-$WORK/firefly}
firefly() { verb=$1; shift; "$PYTHON" -m starrynight.firefly "$verb" --work "$WORK" --device "$DEVICE" "$@"; }

# Seven eighths of the time train and save; the rest judges.
firefly train --seconds "$((SECONDS_IN_ALL * 7 / 8))" --out "$OUT"
firefly evaluate --weights "$OUT" --seconds "$((SECONDS_IN_ALL / 8))" --out "$OUT/evaluation.json"
firefly sheet --weights "$OUT" --out "$OUT/sheet.jpg"
