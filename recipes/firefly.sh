#!/bin/sh
# Train Firefly from nothing: draw the pictures, train, save, evaluate. Every line resumes from its own checkpoint, so the
# script may be killed at any moment and run again. Two cores, about seven and a half hours; no network, no GPU.
#
# The shipped weights were trained in five runs, which this script does not repeat exactly. The first run drew ten thousand
# pictures with smaller houses, boats and pagodas; autoencoder, tokenizer and statistics come from those. The second
# started from the saved weights (`begin`) on 6,200 pictures of today's renderer, with a new optimiser. The third
# resumed the second's checkpoint after `recaption`; the fourth and fifth resumed in turn. Here all runs use one set of
# pictures. docs/log.md records every run.
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-${STARRY_HOME:-$HOME/.starrynight}/training}
firefly() { verb=$1; shift; "$PYTHON" -m starrynight.firefly "$verb" --work "$WORK" "$@"; }

# To start from the shipped weights instead: run `begin` once after the pictures are drawn, leave out step 2 and the first
# `learn` pair, and set --until beyond the step in the weights' header.
#   firefly begin

# 1. Draw the training pictures, and a thousand for the evaluation (20 minutes).
firefly draw --pictures "${PICTURES:-10000}" --held-out 1000

# 2. Train the autoencoder: first on dead leaves, then on crops of the paintings. Its encoder is frozen afterwards.
firefly leaves --until 170
firefly autoencoder --until 830 --cooldown 240

# 3. Cache the paintings as latents, at half and at full size; train the tokenizer.
firefly encode --side 128
firefly encode --side 256

# 4. Train transformer and text encoder together: composition and words at half size, then strokes at full size. Each pair
#    is one run. --first adds samples at high noise, where the sampler's first steps fix the hour.
firefly learn --side 128 --until 1297
firefly learn --side 256 --until 2330 --cooldown 470 --batch 16 --shift 2.0
firefly learn --side 128 --until 3081 --batch 64 --rate 1.5e-3 --seed 2 --compiled 1
firefly learn --side 256 --until 3500 --cooldown 230 --batch 24 --rate 1.5e-3 --seed 2 --shift 2.0 --compiled 1
firefly recaption
firefly learn --side 128 --until 4200 --batch 64 --rate 1.5e-3 --seed 3 --compiled 1 --team 1
firefly learn --side 256 --until 5950 --cooldown 550 --batch 24 --rate 1.5e-3 --seed 3 --shift 2.0 --compiled 1 --team 1
firefly learn --side 128 --until 7250 --batch 64 --rate 1.5e-3 --seed 4 --first 0.3 --compiled 1 --team 1
firefly learn --side 256 --until 8450 --cooldown 500 --batch 24 --rate 1.5e-3 --seed 4 --shift 2.0 --first 0.3 --compiled 1 --team 1

firefly learn --side 128 --until 10143 --batch 64 --rate 1.5e-3 --seed 5 --shift 3.0 --first 0.3 --overlooked 0.4 --compiled 1 --team 1
firefly learn --side 256 --until 11193 --cooldown 450 --batch 24 --rate 1.5e-3 --seed 5 --shift 3.0 --first 0.3 --overlooked 0.4 --compiled 1 --team 1
firefly distil --until 240 --cooldown 160 --batch 12 --rate 5e-4 --seed 5 --overlooked 0.2 --compiled 1 --team 1

# 5. Train the decoder alone, against a critic: sharper strokes from the same latents.
firefly polish --until 260 --cooldown 80

# 6. Save the weights; paint the sheet, train the classifier, evaluate.
firefly save   # the shipped weights were saved with --group model: the live weights, after the cooldown
firefly sheet --out docs/firefly-sheet.jpg
firefly judge
firefly evaluate --out docs/firefly-evaluation.json
