"""A voice out of recordings, kept in a file: python examples/clone_a_voice.py me.wav more.m4a

The recordings need no transcript. One second of speech is the least, 3 to 8 are best, and several clips
of one speaker share 8 seconds. Ask the speaker first. m4a and webm need: pip install "stepflow-tts[av]"
"""

import sys

from stepflow_tts import StepFlowTTS, Voice

tts = StepFlowTTS.from_pretrained()
tts.encode_voice(sys.argv[1:], name="Me").save("me.safetensors")

voice = Voice.load("me.safetensors")  # later, or elsewhere: the recordings are no longer needed
for number, text in enumerate(["I was encoded once.", "I can say anything you like."], start=1):
    print(tts.synthesize(text, voice).save(f"cloned_{number}.wav"))
