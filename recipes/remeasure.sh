#!/bin/sh
# Measure again what the documents say of the weights that ship, after Firefly was trained: the proof of folding, the wide twin
# written for other tools, the lab's report, the example run that the lab shows first, and the table of fits.
# A killed run continues where it stopped. About three hours on two cores that do nothing else; under load the lab keeps no times.
set -eu
make .venv/bin/.testing
OUT=${OUT:-measured}
mkdir -p "$OUT"

# 1. A thousand pictures of the wide twin in three formats: the table of docs/numerics.md, “The proof”.
.venv/bin/python benchmarks/numerics_twin.py --out "$OUT/proof.jsonl" --work "$OUT/twins" >"$OUT/proof.log"
tail -12 "$OUT/proof.log"

# 2. The twin as other tools read it: docs/numerics.md, “Written for other tools”.
[ -d "$OUT/folded" ] || .venv/bin/starry fold "$OUT/twins/wide" --to float16 -o "$OUT/folded" --json >"$OUT/fold.json"

# 3. The lab's report: docs/lab-report.
RUN="$OUT/precision" sh recipes/precision.sh
for kind in html md json; do cp "$OUT/precision/report.$kind" docs/lab-report/; done

# 4. The run that the lab shows before there is one: its rows and pictures, without the report.
.venv/bin/starry lab run --quick --prompts 1 -o "$OUT/example"
for name in plan.json machine.json results.jsonl pictures; do cp -r "$OUT/example/$name" starrynight/lab/example/; done
# 5. The table and the curve of docs/fit.md. A home of its own: pictures that were judged under an earlier rounding would count.
STARRY_HOME="$OUT/fit-home" .venv/bin/python benchmarks/fit.py 24 256 "$OUT/fit.json" docs/fit-curve.svg | tee "$OUT/fit.log"
echo "✦ docs/lab-report, starrynight/lab/example, $OUT/proof.log, $OUT/fold.json"
