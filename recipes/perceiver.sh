#!/bin/sh
# Train the perceiver from nothing to saved, measured weights in about SECONDS (5400 by default) on two CPU cores:
#
#   recipes/perceiver.sh 5400
#
# Training pictures are drawn, and painted by Firefly, beside the training. Killed at any moment and run again, every step goes on where it was stopped.
# The weights come to OUT; copy them to starrynight/weights/perceiver when the evaluation is good.
set -eu
SECONDS_IN_ALL=${1:-5400}
PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-${STARRY_HOME:-$HOME/.starrynight}/training-perceiver}
OUT=${OUT:-$WORK/weights/perceiver.safetensors}
senses() { verb=$1; shift; "$PYTHON" -m starrynight.senses "$verb" --work "$WORK" "$@"; }

beside() {
    senses paint --set painted-training --pictures 720 --steps 4 --seconds "$((SECONDS_IN_ALL / 3))"
    senses draw --set training --seconds "$((SECONDS_IN_ALL / 3))"
}

senses draw --set held-out --pictures 480
senses draw --set calibration --pictures 2880
senses draw --set training --seconds 60
senses paint --set painted-training --pictures 720 --steps 4 --seconds 30
beside &
senses train --seconds "$((SECONDS_IN_ALL * 3 / 4))"
wait
senses paint --set painted-calibration --pictures 264
senses paint --set painted --pictures 216
senses write --out "$OUT"
senses evaluate --weights "$OUT" --out "$WORK/evaluation.json"
