"""A voice out of a recording, kept in a file: python examples/clone_voice.py me.wav

The recording needs no transcript: 1 s of speech at least, the first 8 s are used. Ask its speaker first.
"""

import sys

from stepflow_tts import StepFlowTTS, Voice

tts = StepFlowTTS.from_pretrained()
tts.encode_voice(sys.argv[1]).save("cloned.safetensors")

voice = Voice.load("cloned.safetensors")  # later, or elsewhere: the recording is no longer needed
for number, text in enumerate(["I was encoded once.", "I can say anything you like."], start=1):
    print(tts.synthesize(text, voice).save(f"cloned_{number}.wav"))
