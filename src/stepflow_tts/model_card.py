"""The model card of a checkpoint that has none of its own, ready for the Hub."""

from collections.abc import Sequence

from stepflow_tts.config import CheckpointConfig
from stepflow_tts.models.acoustic import AcousticModel, count_parameters

TEMPLATE = """\
---
library_name: stepflow-tts
pipeline_tag: text-to-speech
language:
- en
tags:
- text-to-speech
- voice-cloning
- flow-matching
---

# {title}

{parameters:.1f} M parameters without the vocoder, {sample_rate} Hz, languages {languages}.

```python
from stepflow_tts import StepFlowTTS

tts = StepFlowTTS.from_pretrained("org/name")  # where this folder is on the Hub, or its path
tts.synthesize("Hello there.", "reference.wav").save("hello.wav")
```

- Number of steps: {num_steps}
- Voices: {voices}

## Before publishing

Say what it was trained on and under which licences, how it scores and with which command, and what it
does badly. Clone a voice only with the consent of the person it belongs to.
"""


def model_card(config: CheckpointConfig, model: AcousticModel, voices: Sequence[str]) -> str:
    """Markdown with the Hub's metadata: what the config tells, and what its author has to add."""
    is_teacher = config.conditioning == "time"
    return TEMPLATE.format(
        title="A StepTTS teacher" if is_teacher else "A StepFlow text-to-speech model",
        parameters=count_parameters(model) / 1e6,
        sample_rate=config.mel.sample_rate,
        languages=", ".join(config.languages),
        num_steps="any, usually 10" if is_teacher else ", ".join(map(str, config.num_steps)),
        voices=", ".join(voices) or "none",
    )
