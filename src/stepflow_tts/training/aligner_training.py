"""Trains the aligner with the one loop, keeps it, and checks where it puts boundaries."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import CheckpointFormatError
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.aligner_data import IGNORED, Labelled, as_recorded, crop, frame_labels
from stepflow_tts.training.aligner_model import Aligner, is_optional, log_posteriors
from stepflow_tts.training.forced_alignment import find_path
from stepflow_tts.training.loop import LoopConfig, Loss, step_generator, train

ALIGNER_FILE = "aligner.safetensors"
BATCH = 16  # crops
FRAME_MS = 1000 / MelConfig().frame_rate  # 10.67


class Batch(NamedTuple):
    """Degraded crops and what is spoken in them."""

    log_mel: Tensor  # (B, T, M)
    labels: Tensor  # (B, T), IGNORED beyond an utterance's end


class BoundaryCheck(NamedTuple):
    """How far the starts of phones are from where they were known to be."""

    num_boundaries: int
    within_30_ms: float  # share
    median_ms: float
    p90_ms: float


class AlignerTask:
    """Cross-entropy of frame labels on degraded crops; `training.loop.train` runs it."""

    def __init__(
        self,
        model: Aligner,
        train: Sequence[Labelled],
        held_back: Sequence[Labelled],
        symbols: Sequence[str],
        seed: int = 0,
    ) -> None:
        """Label every utterance.

        Args:
            model: what learns.
            train: utterances to crop from, in proportion to their frames.
            held_back: utterances to validate on, undegraded.
            symbols: of the tokenizer; one class each.
            seed: of crops and degradations.
        """
        self.modules: Mapping[str, nn.Module] = {"aligner": model}
        self._model = model
        self._train = [(u.log_mel, frame_labels(u, symbols)) for u in train]
        self._held_back = [(u.log_mel, frame_labels(u, symbols)) for u in held_back]
        self._weights = torch.tensor([float(len(labels)) for _, labels in self._train])
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """Degraded crops of random utterances, the same for the same step."""
        generator = step_generator(self._seed, step)
        chosen = torch.multinomial(self._weights, BATCH, replacement=True, generator=generator)
        pairs = [crop(*self._train[int(i)], generator) for i in chosen]
        log_mel = torch.stack([m for m, _ in pairs])
        labels = torch.stack([y for _, y in pairs])
        return Batch(as_recorded(log_mel, generator), labels)

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:  # noqa: ARG002
        """The cross-entropy, in nats, over the frames that have a label."""
        logits = self._model(batch.log_mel)  # (B, T, classes)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)
        yield Loss("aligner", loss, {"cross_entropy": float(loss.detach())})

    @torch.no_grad()
    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002
        """Cross-entropy and accuracy of held-back frames."""
        total = right = frames = 0.0
        for log_mel, labels in self._held_back:
            logits = ema(torch.from_numpy(log_mel.astype(np.float32))[None])[0]
            target = torch.from_numpy(labels)
            total += float(F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum"))
            right += float((logits.argmax(-1) == target).sum())
            frames += float((target != IGNORED).sum())
        return {"cross_entropy": total / frames, "accuracy": right / frames}


def trained_aligner(
    folder: Path,
    train_set: Sequence[Labelled],
    held_back: Sequence[Labelled],
    tokenizer: Tokenizer,
    *,
    num_updates: int,
    seed: int,
) -> Aligner:
    """The classifier kept in the prepared `folder`, or a new one, which is then kept there.

    Args:
        folder: prepared data.
        train_set: utterances to learn from.
        held_back: utterances to validate on.
        tokenizer: of their tokens.
        num_updates: of a new one.
        seed: of its weights and batches.

    Raises:
        CheckpointFormatError: what is kept there is damaged or knows other symbols.
    """
    model = Aligner(len(tokenizer))
    path = folder / ALIGNER_FILE
    if path.exists():
        try:
            with safe_open(path, "pt") as file:
                symbols = json.loads(file.metadata()["symbols"])
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            model.load_state_dict(weights)
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointFormatError(
                f"{path} is not an aligner of this version ({error}). Remove it to train anew."
            ) from error
        if symbols != list(tokenizer.symbols):
            raise CheckpointFormatError(
                f"{path} was trained with other phoneme symbols. Remove it to train anew."
            )
        return model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Aligner(len(tokenizer))
    task = AlignerTask(model, train_set, held_back, tokenizer.symbols, seed)
    loop = LoopConfig(
        num_updates=num_updates,
        learning_rate=2e-3,
        warmup_updates=min(100, num_updates // 10),
        ema_decay=0.995,
        checkpoint_seconds=120.0,
        validate_every=250,
    )
    ema = train(task, folder / "aligner", loop)
    model.load_state_dict(ema.state_dict())
    partial = path.with_name(path.name + ".partial")
    save_file(model.state_dict(), partial, {"symbols": json.dumps(tokenizer.symbols)})
    os.replace(partial, path)
    return model.eval()


def check_boundaries(
    model: Aligner,
    utterances: Sequence[Labelled],
    tokenizer: Tokenizer,
    *,
    degrade_seed: int | None = None,
) -> BoundaryCheck:
    """How well the starts of all phones are found in speech with known durations.

    Args:
        model: the classifier.
        utterances: kept back from its training.
        tokenizer: of their tokens.
        degrade_seed: of the noise, rooms and lines that are put over them; None leaves them clean.
    """
    errors: list[float] = []
    for i, u in enumerate(utterances):
        mel = torch.from_numpy(u.log_mel.astype(np.float32))
        if degrade_seed is not None:
            mel = as_recorded(mel[None], step_generator(degrade_seed, i))[0]
        symbols = [tokenizer.symbols[k] for k in u.token_ids]
        posteriors = log_posteriors(model, mel).numpy()
        path = find_path(posteriors, u.token_ids, symbols)
        if path is None:
            continue
        found = np.cumsum(path.durations) - path.durations
        true = np.cumsum(u.durations) - u.durations
        errors += np.abs(found - true)[~np.array([is_optional(s) for s in symbols])].tolist()
    ms = np.array(errors) * FRAME_MS
    return BoundaryCheck(
        len(ms),
        float((ms <= 30).mean()),
        float(np.median(ms)),
        float(np.percentile(ms, 90)),
    )
