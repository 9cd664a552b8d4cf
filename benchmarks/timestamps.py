"""How far word times are from where the project's own aligner hears the words.

    python benchmarks/timestamps.py FOLDER [--model SOURCE] [--count 40] [--threads 1]

FOLDER was made by `stepflow-tts prepare` and `align`; texts and, for the aligner's own error, utterances with
known durations are those that its training has not seen. Prints one line of JSON for benchmarks/results/.
"""

import argparse
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stepflow_tts import InputError, Speech, StepFlowTTS
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.text.plan import plan
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.aligner_data import Labelled
from stepflow_tts.training.aligner_model import Aligner, log_posteriors
from stepflow_tts.training.aligner_training import check_boundaries, trained_aligner
from stepflow_tts.training.forced_alignment import find_path
from stepflow_tts.training.utterances import Utterance, open_mels, read_utterances

MAX_CHARACTERS = 150  # of a text: one chunk, so that its phonemes are known


def known(
    folder: Path, utterances: Sequence[Utterance], count: int, tts: StepFlowTTS
) -> list[Labelled]:
    """Unseen synthetic utterances, whose durations no aligner made."""
    aligned = {
        json.loads(line)["id"] for line in (folder / "alignments.jsonl").read_text().splitlines()
    }
    mels = open_mels(folder, tts.config.mel)
    return [
        Labelled(mels[u.start_frame : u.start_frame + u.num_frames], u.token_ids, u.durations)
        for u in utterances
        if u.id not in aligned and u.durations and u.token_ids and not u.dropped
    ][:count]


def errors_of(speech: Speech, text: str, tts: StepFlowTTS, aligner: Aligner) -> list[float]:
    """Milliseconds between the starts and ends of the words and those that the aligner finds."""
    mel, tokenizer = tts.config.mel, Tokenizer()
    (part,) = plan(text, "en-us", tokenizer)
    features = log_mel(torch.from_numpy(np.array(speech.samples))[None], mel)[0]  # (T, M)
    symbols = [tokenizer.symbols[i] for i in part.token_ids]
    path = find_path(log_posteriors(aligner, features).numpy(), part.token_ids, symbols)
    if path is None:
        return []
    seconds = np.concatenate(([0], np.cumsum(path.durations))) / mel.frame_rate  # (L + 1,)
    spans = part.word_spans()
    assert [span.text for span in spans] == [word.text for word in speech.words]
    heard = [t for span in spans for t in (seconds[span.start], seconds[span.end])]
    told = [t for word in speech.words for t in (word.start_seconds, word.end_seconds)]
    return [1000 * abs(a - b) for a, b in zip(heard, told, strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="a checkpoint; the bundled one by default")
    parser.add_argument(
        "--count", type=int, default=40, help="texts, and utterances for the aligner"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not (args.folder / "aligner.safetensors").is_file():
        raise InputError(f"{args.folder} has no aligner. Make one with: stepflow-tts align")
    tts = StepFlowTTS.from_pretrained(args.model)
    aligner = trained_aligner(args.folder, [], [], Tokenizer(), num_updates=0, seed=0)
    unseen = [u for u in read_utterances(args.folder) if u.split == "held_out"]
    check = check_boundaries(aligner, known(args.folder, unseen, args.count, tts), Tokenizer())
    errors: list[float] = []
    texts = dict.fromkeys(u.text for u in unseen if len(u.text) <= MAX_CHARACTERS)
    voices = list(tts.voices.values())
    num_texts = 0
    for i, text in enumerate(texts):
        if num_texts == args.count:
            break
        pieces = list(tts.stream(text, voices[i % len(voices)], language="en-us"))
        if len(pieces) == 1:
            errors += errors_of(pieces[0], text, tts, aligner)
            num_texts += 1
    print(
        json.dumps(
            {
                "command": f"python benchmarks/timestamps.py {args.folder.name} --count {args.count}",
                "commit": subprocess.check_output(
                    ["git", "rev-parse", "--short", "HEAD"], text=True
                ).strip(),
                "machine": platform.machine(),
                "threads": args.threads,
                "model": args.model or "bundled",
                "texts": num_texts,
                "word_edges": len(errors),
                "median_ms": round(float(np.median(errors)), 1),
                "p90_ms": round(float(np.percentile(errors, 90)), 1),
                "aligner_boundaries": check.num_boundaries,
                "aligner_median_ms": round(check.median_ms, 1),
                "aligner_p90_ms": round(check.p90_ms, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
