"""Reads checkpoints of the package vocos, such as charactr/vocos-mel-24khz, without running their pickles."""

from pathlib import Path
from typing import Any

import torch
import yaml

from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError
from stepflow_tts.models.vocoder import Vocoder


def load_vocos(config_path: str | Path, weights_path: str | Path) -> Vocoder:
    """A vocoder from a checkpoint of the package vocos, such as charactr/vocos-mel-24khz.

    Args:
        config_path: its config.yaml. Only mel features, VocosBackbone and a centred ISTFTHead are read;
            no class named in it is imported.
        weights_path: its pytorch_model.bin, read without unpickling any object.

    Raises:
        CheckpointNotFoundError: a file is missing.
        CheckpointFormatError: another architecture, or weights that do not fit it.
    """
    for path in (Path(config_path), Path(weights_path)):
        if not path.is_file():
            raise CheckpointNotFoundError(f"There is no file {path}. Vocos needs both its files.")
    config, mel = _read_vocos_config(Path(config_path))
    try:
        state = torch.load(weights_path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch's unpickler raises whatever a damaged file makes it stumble on
        raise CheckpointFormatError(f"{weights_path} is not a file of tensors: {error}") from error
    # The feature extractor's window and filters follow from the config: audio.mel makes its own.
    state = {k: v for k, v in state.items() if not k.startswith("feature_extractor.")}
    vocoder = Vocoder(config, mel)
    try:
        vocoder.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointFormatError(
            f"{weights_path} does not fit {config_path}: {error}"
        ) from error
    return vocoder.eval()


def _read_vocos_config(path: Path) -> tuple[VocoderConfig, MelConfig]:
    """Sizes from a config.yaml of vocos, whose defaults stand in where it is silent."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointFormatError(f"{path} is not YAML: {error}") from error
    features = _init_args(data, "feature_extractor", "MelSpectrogramFeatures", path)
    backbone = _init_args(data, "backbone", "VocosBackbone", path)
    head = _init_args(data, "head", "ISTFTHead", path)
    mel = MelConfig(
        sample_rate=features.get("sample_rate", 24000),
        n_fft=features.get("n_fft", 1024),
        hop_length=features.get("hop_length", 256),
        n_mels=features.get("n_mels", 100),
    )
    expected = {"n_fft": mel.n_fft, "hop_length": mel.hop_length, "padding": "center"}
    found = {"padding": "same", **head}
    wrong = [k for k, v in expected.items() if found.get(k) != v]
    if features.get("padding", "center") != "center":
        raise CheckpointFormatError(f"{path}: features must have padding 'center'.")
    if wrong:
        raise CheckpointFormatError(
            f"{path}: head.{wrong[0]} is {found.get(wrong[0])!r}; it must be {expected[wrong[0]]!r}."
        )
    if backbone.get("adanorm_num_embeddings") is not None:
        raise CheckpointFormatError(f"{path}: a backbone with adanorm reads codes, not log-mels.")
    try:
        config = VocoderConfig(
            dim=backbone["dim"],
            intermediate_dim=backbone["intermediate_dim"],
            num_layers=backbone["num_layers"],
            prior=False,
            griffin_lim_iterations=0,
        )
    except KeyError as error:
        raise CheckpointFormatError(f"{path}: backbone lacks the key {error}.") from error
    return config, mel


def _init_args(data: Any, part: str, class_name: str, path: Path) -> dict[str, Any]:
    """The `init_args` of one part, whose class must be `class_name`."""
    section = data.get(part) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        raise CheckpointFormatError(f"{path} has no section {part!r}.")
    found = str(section.get("class_path", ""))
    if found.rsplit(".", 1)[-1] != class_name:
        raise CheckpointFormatError(
            f"{path}: {part} is {found!r}; only {class_name} can be read here."
        )
    arguments = section.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise CheckpointFormatError(f"{path}: {part}.init_args must be a mapping.")
    return arguments
