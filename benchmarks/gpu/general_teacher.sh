#!/usr/bin/env bash
# For a GPU: a teacher for rooms in general. Not run yet; ship its weights only if `evaluate` on unseen rooms gives
# Rel <= 0.07 and a median rotation <= 6 degrees. Budget: about 25 minutes on one H200, plus rendering on the CPU.
set -euo pipefail
work=${1:?usage: benchmarks/gpu/general_teacher.sh WORK_FOLDER}
distill3d=${DISTILL3D:-distill3d}

"$distill3d" render rooms --out "$work/rooms" --count 20000 --views 8 --seed 1
"$distill3d" render rooms --out "$work/unseen" --count 150 --views 6 --seed 2 --split test
for set in rooms unseen; do
  "$distill3d" manifest build "$work/$set" --out "$work/$set.parquet"
done
"$distill3d" cache build --manifest "$work/rooms.parquet" --out "$work/cache" --teacher ground-truth --policy random \
  --views 8 --groups 20000 --fit.long-side 112 --resume
"$distill3d" train place_teacher --cache "$work/cache" --out "$work/run" --variant general_teacher --batch 256 \
  --steps 20000 --workers 12 --views 6
"$distill3d" evaluate --model "$work/run" --manifest "$work/unseen.parquet" --policy random --views 4 --groups 150 \
  --train-groups 0 --out "$work/evaluation"
