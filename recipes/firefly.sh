#!/bin/sh
# Firefly from nothing: draw the pictures, train, save, judge. Every line goes on from its own checkpoint, so the
# script may be killed at any moment and run again. Two cores, about seven and a half hours; no network, no GPU.
#
# What this does not repeat of the shipped weights' history: they learnt in five sittings. The first drew ten thousand
# pictures with smaller houses, boats and pagodas; autoencoder, tokenizer and statistics come from those. The second
# went on from the saved weights (`begin`) on 6,200 pictures of today's renderer, and its optimiser began anew; the third
# went on from its checkpoint, after `recaption`, and so did the fourth and fifth. Here one set of pictures serves all. docs/log.md
# has all of them, minute by minute.
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-${STARRY_HOME:-$HOME/.starrynight}/training}
firefly() { verb=$1; shift; "$PYTHON" -m starrynight.firefly "$verb" --work "$WORK" "$@"; }

# To go on from the shipped weights instead of from nothing: run `begin` once, after the pictures are drawn, leave out
# step 2 and the first `learn` pair, and set --until further than the step in the weights' header.
#   firefly begin

# 1. Paintings to learn from, a thousand to be judged by (20 minutes).
firefly draw --pictures "${PICTURES:-10000}" --held-out 1000

# 2. The autoencoder: first steps on dead leaves, then crops of the paintings. Its encoder is frozen from here on.
firefly leaves --until 170
firefly autoencoder --until 830 --cooldown 240

# 3. The paintings as latents, at half size and whole; the tokenizer.
firefly encode --side 128
firefly encode --side 256

# 4. Transformer and text encoder together: composition and words at half size, then strokes at full size. The first
#    pair is the first sitting, and so on. --first: the hour is settled in the sampler's first step.
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

# 5. The decoder alone, against a critic: crisper strokes from the same latents.
firefly polish --until 260 --cooldown 80

# 6. The weights, their sheet, their judge, their figures.
firefly save   # the shipped weights were saved with --group model: the live ones, after the cooldown
firefly sheet --out docs/firefly-sheet.jpg
firefly judge
firefly evaluate --out docs/firefly-evaluation.json
