#!/bin/sh
# Firefly from nothing: draw the pictures, train, save, judge. Every line goes on from its own checkpoint, so the
# script may be killed at any moment and run again. Two cores, about three hours; no network, no GPU.
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-${STARRY_HOME:-$HOME/.starrynight}/training}
firefly() { verb=$1; shift; "$PYTHON" -m starrynight.firefly "$verb" --work "$WORK" "$@"; }

# 1. Ten thousand paintings to learn from, a thousand to be judged by (20 minutes).
firefly draw --pictures 10000 --held-out 1000

# 2. The autoencoder: first steps on dead leaves, then crops of the paintings. Its encoder is frozen from here on.
firefly leaves --until 170
firefly autoencoder --until 830 --cooldown 240

# 3. The paintings as latents, at half size and whole; the tokenizer.
firefly encode --side 128
firefly encode --side 256

# 4. Transformer and text encoder together: composition and words at half size, then strokes at full size.
firefly learn --side 128 --until "${HALF_STEPS:-1297}"
firefly learn --side 256 --until "${WHOLE_STEPS:-2330}" --cooldown "${COOLDOWN:-470}" --batch 16 --shift 2.0

# 5. The weights, their sheet, their figures.
firefly save
firefly sheet --out docs/firefly-sheet.jpg
firefly evaluate --out docs/firefly-evaluation.json
