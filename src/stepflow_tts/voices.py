"""Which voice a caller means, and what it adds to a network."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from stepflow_tts.audio.io import AudioSource
from stepflow_tts.audio.mel import to_flow
from stepflow_tts.errors import AudioError, OptionError
from stepflow_tts.hub import Checkpoint
from stepflow_tts.models.acoustic import VoiceContext
from stepflow_tts.voice import Voice, VoiceCache

VoiceSource: TypeAlias = (
    Voice | AudioSource | list[AudioSource] | tuple[AudioSource | list[AudioSource], int] | None
)
"""A `Voice`, the name of one of the checkpoint's, or a reference recording: a path, an encoded file's
bytes, a binary file object, an (array or tensor, sample rate) pair; or a list of several of one speaker.
None is the first voice."""

MAX_CONTEXTS = 8  # kept voices; one of 8 s takes 6 MB with `nano`, 35 MB with `base`


class Voices:
    """The voices of a checkpoint and those of recordings; the last ones used are remembered.

    Threads may share one.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._encoded = VoiceCache()
        self._contexts: OrderedDict[str, VoiceContext] = OrderedDict()

    def find(self, source: VoiceSource) -> Voice:
        """The voice that `source` means.

        Raises:
            OptionError: there is no voice of that name.
            AudioError: the recording cannot be used.
        """
        known = self._checkpoint.voices
        if source is None:
            if not known:
                raise OptionError(
                    "This checkpoint has no voices: pass voice=, such as a recording."
                )
            return next(iter(known.values()))
        if isinstance(source, Voice):
            return source
        if isinstance(source, str) and source in known:
            return known[source]
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if path.suffix.lower() == ".safetensors" and path.is_file():
                return Voice.load(path)
            if not path.suffix and not os.path.exists(path):
                raise OptionError(
                    f"There is no voice {str(path)!r}. Choose one of: {', '.join(known) or 'none'}; "
                    "or pass the path of a recording."
                )
        if isinstance(source, np.ndarray | Tensor):
            raise AudioError("An array has no sample rate: pass voice=(array, sample_rate).")
        return self._encode(source)

    def context(self, voice: Voice) -> VoiceContext:
        """What the voice adds to the network, computed once a voice.

        Raises:
            OptionError: it was made for other mel parameters.
        """
        config, model = self._checkpoint.config, self._checkpoint.model
        if voice.mel != config.mel:
            raise OptionError(
                f"The voice {voice.name!r} was made for {voice.mel}, this checkpoint needs "
                f"{config.mel}: encode its recording with this checkpoint's encode_voice."
            )
        key = voice.digest
        with self._lock:
            if key in self._contexts:
                self._contexts.move_to_end(key)
                return self._contexts[key]
        with torch.inference_mode():
            device = next(model.parameters()).device
            features = to_flow(voice.log_mel[None], config.flow).to(device)  # (1, T, M)
            context = model.encode_voice(features)
        with self._lock:
            self._contexts[key] = context
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def forget_contexts(self) -> None:
        """Forget what was computed on a device that the network has left."""
        with self._lock:
            self._contexts.clear()

    def _encode(
        self, source: AudioSource | list[AudioSource] | tuple[AudioSource | list[AudioSource], int]
    ) -> Voice:
        """The voice of one or several recordings."""
        mel = self._checkpoint.config.mel
        if not isinstance(source, tuple):
            return self._encoded.from_audio(source, mel=mel)
        if len(source) != 2:
            raise AudioError(
                f"voice=(array, sample_rate) has 2 parts, not {len(source)}. Several recordings "
                "of one speaker come as a list."
            )
        return self._encoded.from_audio(source[0], source[1], mel=mel)
