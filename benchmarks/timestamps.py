"""How far word times are from where the project's own aligner, and a recognizer, hear the words.

    python benchmarks/timestamps.py FOLDER [--model SOURCE] [--count 40] [--whisper base]

FOLDER was made by `stepflow-tts prepare` and `align`; texts, and utterances with known durations, are those that
the aligner's training has not seen. Both ears are first held against those known durations, so that their own
errors are known; then against the word times of `Speech` of the same texts.
"""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import for_ears, options, parse, record

from stepflow_tts import InputError, Speech, StepFlowTTS
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.evaluation.sources import import_package
from stepflow_tts.subtitles import Word
from stepflow_tts.text.plan import Part, plan
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.aligner_data import Labelled
from stepflow_tts.training.aligner_model import Aligner, log_posteriors
from stepflow_tts.training.aligner_training import check_boundaries, trained_aligner
from stepflow_tts.training.forced_alignment import find_path
from stepflow_tts.training.utterances import Utterance, open_audio, open_mels, read_utterances


class WordEar:
    """Whisper through faster-whisper, with the times of words."""

    def __init__(self, source: str) -> None:
        package: Any = import_package("faster_whisper", "Word times")
        threads = torch.get_num_threads()
        self._model = package.WhisperModel(source, "cpu", compute_type="int8", cpu_threads=threads)

    def __call__(self, speech: Speech) -> list[Word]:
        """The words that are heard."""
        segments, _ = self._model.transcribe(
            for_ears(speech), language="en", temperature=0.0, word_timestamps=True
        )
        return [Word(w.word, w.start, w.end) for s in segments for w in s.words]

    def errors(self, speech: Speech) -> list[float]:
        """Milliseconds between the starts and ends of words that are heard as they are written."""
        told, heard = speech.words, self(speech)
        same = difflib.SequenceMatcher(None, [_plain(w) for w in told], [_plain(w) for w in heard])
        pairs = [
            (told[block.a + i], heard[block.b + i])
            for block in same.get_matching_blocks()
            for i in range(block.size)
        ]
        return [
            1000 * abs(a - b)
            for one, other in pairs
            for a, b in (
                (one.start_seconds, other.start_seconds),
                (one.end_seconds, other.end_seconds),
            )
        ]


def _plain(word: Word) -> str:
    return re.sub(r"[^\w']", "", word.text.lower())


def known(
    folder: Path, utterances: Sequence[Utterance], count: int, tts: StepFlowTTS
) -> tuple[list[Labelled], list[Speech]]:
    """Unseen synthetic utterances, whose durations no aligner made; and as speech with word times."""
    aligned = {
        json.loads(line)["id"] for line in (folder / "alignments.jsonl").read_text().splitlines()
    }
    mels, audio = open_mels(folder, tts.config.mel), open_audio(folder)
    labelled, speeches = [], []
    for u in utterances:
        if u.id in aligned or not u.durations or not u.token_ids or u.dropped:
            continue
        mel = mels[u.start_frame : u.start_frame + u.num_frames]
        labelled.append(Labelled(mel, u.token_ids, u.durations))
        parts = plan(u.text, "en-us", Tokenizer(), first=False)
        if len(parts) == 1 and parts[0].token_ids == u.token_ids:  # else its words are not known
            samples = audio[u.start_sample : u.start_sample + u.num_samples]
            words = words_of(parts[0], u.durations, tts.config.mel.frame_rate)
            speeches.append(
                Speech(
                    np.divide(samples, 32767, dtype=np.float32), tts.sample_rate, 0, u.text, words
                )
            )
        if len(labelled) == count:
            break
    return labelled, speeches


def words_of(part: Part, durations: Sequence[int], frame_rate: float) -> tuple[Word, ...]:
    """The words of a part, whose tokens last `durations` frames."""
    seconds = np.concatenate(([0], np.cumsum(durations))) / frame_rate  # (L + 1,)
    return tuple(
        Word(s.text, float(seconds[s.start]), float(seconds[s.end])) for s in part.word_spans()
    )


def aligner_errors(speech: Speech, part: Part, tts: StepFlowTTS, aligner: Aligner) -> list[float]:
    """Milliseconds between the starts and ends of the words and those that the aligner finds."""
    mel, tokenizer = tts.config.mel, Tokenizer()
    features = log_mel(torch.from_numpy(np.array(speech.samples))[None], mel)[0]  # (T, M)
    symbols = [tokenizer.symbols[i] for i in part.token_ids]
    path = find_path(log_posteriors(aligner, features).numpy(), part.token_ids, symbols)
    if path is None:
        return []
    heard = words_of(part, path.durations, mel.frame_rate)
    assert [word.text for word in heard] == [word.text for word in speech.words]
    return [
        1000 * abs(a - b)
        for one, other in zip(speech.words, heard, strict=True)
        for a, b in ((one.start_seconds, other.start_seconds), (one.end_seconds, other.end_seconds))
    ]


def summary(errors: list[float]) -> dict[str, float]:
    """Median and 90th percentile of milliseconds."""
    if not errors:
        return {"edges": 0}
    return {
        "edges": len(errors),
        "median_ms": round(float(np.median(errors)), 1),
        "p90_ms": round(float(np.percentile(errors, 90)), 1),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=40, help="texts, and known utterances")
    parser.add_argument("--whisper", default="base", help="size, folder or Hub id")
    args = parse(parser)
    if not (args.folder / "aligner.safetensors").is_file():
        raise InputError(f"{args.folder} has no aligner. Make one with: stepflow-tts align")
    tts = StepFlowTTS.from_pretrained(args.model)
    aligner = trained_aligner(args.folder, [], [], Tokenizer(), num_updates=0, seed=0)
    ear = WordEar(args.whisper)
    unseen = [u for u in read_utterances(args.folder) if u.split == "held_out"]
    labelled, recordings = known(args.folder, unseen, args.count, tts)
    check = check_boundaries(aligner, labelled, Tokenizer())
    by_aligner: list[float] = []
    by_recognizer: list[float] = []
    texts = list(dict.fromkeys(u.text for u in unseen))[: args.count]
    voices = list(tts.voices.values())
    for i, text in enumerate(texts):
        parts = plan(text, "en-us", Tokenizer())
        pieces = tts.stream(text, voices[i % len(voices)], language="en-us")
        for part, piece in zip(parts, pieces, strict=True):
            by_aligner += aligner_errors(piece, part, tts, aligner)
            by_recognizer += ear.errors(piece)
    record(
        "timestamps",
        {
            "texts": len(texts),
            "own_error_on_known_durations": {
                "aligner": {
                    "edges": check.num_boundaries,
                    "median_ms": round(check.median_ms, 1),
                    "p90_ms": round(check.p90_ms, 1),
                },
                "recognizer": summary([e for speech in recordings for e in ear.errors(speech)]),
            },
            "word_times_by_aligner": summary(by_aligner),
            "word_times_by_recognizer": summary(by_recognizer),
        },
    )


if __name__ == "__main__":
    main()
