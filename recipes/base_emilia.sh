#!/bin/sh
# Emilia's English shards to the checkpoint runs/base_emilia/checkpoints/student, on 8 GPUs.
#   recipes/base_emilia.sh EMILIA/EN
set -eu
[ $# -eq 1 ] || { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
recordings=$(realpath "$1")
cd "$(dirname "$0")/.."

on_all_gpus() {
  accelerate launch --multi_gpu --num_processes 8 --num_machines 1 --mixed_precision no \
    --dynamo_backend no -m stepflow_tts train "$1" \
    --config recipes/base_emilia.toml --folder runs/base_emilia
}

# Shards are read as a stream; after a failure the same command goes on behind the whole ones.
[ -d data/emilia ] || stepflow-tts prepare "$recordings" --folder data/emilia
stepflow-tts align data/emilia --aligner checkpoints/aligner.safetensors
on_all_gpus teacher
on_all_gpus vocoder
stepflow-tts train trajectories --config recipes/base_emilia.toml --folder runs/base_emilia
on_all_gpus distill
