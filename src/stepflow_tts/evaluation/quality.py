"""Predictions of how listeners would rate the sound, from 1 to 5; no reference is needed."""

from typing import Any

import numpy as np
import torch

# First: it lets a torchaudio be imported beside a PyTorch of another CUDA release.
import stepflow_tts.audio  # noqa: F401
from stepflow_tts.audio.io import Samples
from stepflow_tts.evaluation.sources import find_file, import_package

SAMPLE_RATE = 16_000  # of both networks
DNSMOS_SAMPLES = int(9.01 * SAMPLE_RATE)  # what the network takes at once

# From the network's outputs to ratings, highest power first.
# Source: github.com/microsoft/DNS-Challenge, DNSMOS/dnsmos_local.py.
POLYNOMIALS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}


class Dnsmos:
    """DNSMOS P.835: noise and distortion; it hears neither roughness nor prosody.

    Source: Reddy et al. 2022 (arXiv 2110.01763).
    """

    def __init__(self, source: str | None = None) -> None:
        """Load the network.

        Args:
            source: sig_bak_ovr.onnx as a file or "org/name/file" on the Hub; None for the one in
                the package speechmos.

        Raises:
            MissingDependencyError: onnxruntime or speechmos is not installed.
            CheckpointNotFoundError, DownloadError: the file is not where `source` says.
        """
        onnxruntime = import_package("onnxruntime", "DNSMOS")
        path = find_file(source, "speechmos", "dnsmos_models/sig_bak_ovr.onnx", "DNSMOS")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options)

    def __call__(self, samples: Samples) -> dict[str, float]:
        """The ratings overall (`dnsmos`), of the speech and of the background, of (S,) at 16 kHz."""
        windows = dnsmos_windows(samples.clip(-1.0, 1.0))
        outputs = [self._session.run(None, {"input_1": w[None]})[0][0] for w in windows]
        return dnsmos_ratings(np.array(outputs))


def dnsmos_windows(samples: Samples) -> list[Samples]:
    """Windows of 9.01 s, one a second; shorter speech is doubled until it is long enough."""
    while len(samples) < DNSMOS_SAMPLES:
        samples = np.concatenate((samples, samples))
    # As its authors count: whole seconds less 9.01, which leaves the last window out most often.
    num_windows = int(len(samples) // SAMPLE_RATE - 9.01) + 1
    starts = (i * SAMPLE_RATE for i in range(num_windows))
    return [samples[start : start + DNSMOS_SAMPLES] for start in starts]


def dnsmos_ratings(outputs: Samples) -> dict[str, float]:
    """The mean ratings of (windows, 3) outputs: speech, background, overall."""
    return {
        name: float(np.polyval(polynomial, column).mean())
        for (name, polynomial), column in zip(POLYNOMIALS.items(), outputs.T, strict=True)
    }


class DistillMos:
    """Distill-MOS: naturalness, also of synthetic speech.

    Source: Stahl and Gamper 2025 (arXiv 2502.05356).
    """

    def __init__(self, source: str | None = None) -> None:
        """Load the network.

        Args:
            source: its weights as a file or "org/name/file" on the Hub; None for the package's.

        Raises:
            MissingDependencyError: distillmos is not installed.
            CheckpointNotFoundError, DownloadError: the weights are not where `source` says.
        """
        package = import_package("distillmos", "Distill-MOS")
        path = find_file(source, "distillmos", "weights/distill_mos_v7.pt", "Distill-MOS")
        self._model: Any = package.ConvTransformerSQAModel(load_weights=False)
        self._model.load_state_dict(
            torch.load(path, map_location="cpu", weights_only=True)["model"]
        )
        self._model.eval()

    @torch.inference_mode()
    def __call__(self, samples: Samples) -> float:
        """The rating of (S,) samples at 16 kHz."""
        return float(self._model(torch.from_numpy(samples)[None])[0, 0])
