#!/bin/sh
# Recordings of one voice to the checkpoint runs/finetune/checkpoints/student.
#   recipes/finetune.sh RECORDINGS
# RECORDINGS: a manifest.jsonl, or a folder with metadata.csv (id|text) and wavs/, as LJSpeech has.
set -eu
[ $# -eq 1 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
recordings=$(realpath "$1")
cd "$(dirname "$0")/.."

[ -d data/voice ] || stepflow-tts prepare "$recordings" --folder data/voice
stepflow-tts align data/voice --aligner checkpoints/aligner.safetensors
stepflow-tts train teacher --config recipes/finetune.toml --folder runs/finetune
stepflow-tts train distill --config recipes/finetune.toml --folder runs/finetune
echo "stepflow-tts say 'Hello.' --model runs/finetune/checkpoints/student --voice A_RECORDING"
