#!/bin/sh
# A folder of recordings to the checkpoint runs/nano/checkpoints/student, on two CPU cores.
#   recipes/nano.sh RECORDINGS [MORE ...]
# RECORDINGS: a manifest.jsonl, or a folder laid out as LJSpeech, LibriTTS or Emilia.
set -eu
[ $# -gt 0 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
n=$#
for path in "$@"; do set -- "$@" "$(realpath "$path")"; done
shift "$n"
cd "$(dirname "$0")/.."

[ -d data/nano ] || stepflow-tts prepare "$@" --folder data/nano --variants 1
stepflow-tts align data/nano --aligner checkpoints/aligner.safetensors
for task in teacher vocoder distill refiner; do
  stepflow-tts train "$task" --config recipes/nano.toml --folder runs/nano
done
# The table's other rows: students of the same teacher and trajectories, beside this one.
for row in ${ROWS:-}; do
  stepflow-tts train distill --config "recipes/rows/$row.toml" --folder runs/nano
done
