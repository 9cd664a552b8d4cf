"""The networks."""

from stepflow_tts import audio  # noqa: F401  (before vocos, which imports torchaudio)
