"""How much speech sounds like the person in the reference.

The cosine of two GE2E speaker embeddings. Source: Wan et al. 2018 (arXiv 1710.10467), as trained by
the authors of Resemblyzer. Nothing may be trained against this encoder, or the score means nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stepflow_tts.audio.io import Samples
from stepflow_tts.evaluation.sources import INSTALL, find_file, import_package

PURPOSE = "The similarity of voices"
LEVEL_DB = -30.0  # quieter speech is raised to it, as the encoder was trained
MIN_SAMPLES = 8000  # less than half a second of detected speech is a failure of the detector

# Alone, since its requirements name a webrtcvad that has to be compiled and then needs an old
# setuptools; webrtcvad-wheels, in our extra, is the same module.
INSTALL_ENCODER = f"{INSTALL} && pip install --no-deps Resemblyzer"


class SpeakerEncoder:
    """Resemblyzer's voice encoder: samples to an embedding of unit length."""

    def __init__(self, source: str | None = None) -> None:
        """Load the encoder.

        Args:
            source: its weights as a file or "org/name/file" on the Hub; None for the package's.

        Raises:
            MissingDependencyError: Resemblyzer is not installed.
            CheckpointNotFoundError, DownloadError: the weights are not where `source` says.
        """
        self._package: Any = import_package("resemblyzer", PURPOSE, INSTALL_ENCODER)
        weights: Path = find_file(source, "resemblyzer", "pretrained.pt", PURPOSE, INSTALL_ENCODER)
        self._encoder: Any = self._package.VoiceEncoder("cpu", verbose=False, weights_fpath=weights)

    def __call__(self, samples: Samples) -> Samples:
        """(256,) embedding of (S,) samples at 16 kHz."""
        if samples.any():  # silence has no level
            samples = self._package.normalize_volume(samples, LEVEL_DB, increase_only=True)
        voiced = self._package.trim_long_silences(samples)
        chosen = voiced if len(voiced) > MIN_SAMPLES else samples
        embedding: Samples = self._encoder.embed_utterance(chosen.astype(np.float32))
        return embedding
