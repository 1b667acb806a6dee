#!/usr/bin/env bash
# Makes src/distill3d/weights/place.safetensors, the small teacher that knows the place of the demo and nothing else.
# Its cameras (seeds 1 and 2) are not those of the demo (seed 0), so the demo's held-out photos are new to it too.
# On one core of a busy two-core machine this took about 50 minutes; see docs/benchmarks.md.
set -euo pipefail
work=${1:?usage: tools/place_teacher.sh WORK_FOLDER}
distill3d=${DISTILL3D:-.venv/bin/distill3d}

"$distill3d" render place --out "$work/places/one" --num-train 3000 --num-test 40 --seed 1
"$distill3d" render place --out "$work/places/two" --num-train 3000 --num-test 40 --seed 2
"$distill3d" manifest build "$work/places" --out "$work/manifest.parquet"
for split in train test; do
  if [ $split = train ]; then views=8 groups=1200; else views=4 groups=40; fi
  "$distill3d" cache build --manifest "$work/manifest.parquet" --out "$work/cache-$split" --teacher ground-truth \
    --policy nearby --reach 1.5 --views $views --groups $groups --split $split --fit.long-side 112 --resume
done
"$distill3d" train place_teacher --cache "$work/cache-train" --validation-cache "$work/cache-test" --out "$work/run"
"${distill3d%distill3d}python" "$(dirname "$0")/ship_teacher.py" "$work/run" src/distill3d/weights/place.safetensors
