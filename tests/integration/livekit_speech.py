"""Speaks through LiveKit's plugin: livekit_speech.py BASE_URL MODEL VOICE TEXT OUTPUT.wav"""

import asyncio
import sys
from pathlib import Path

from livekit.plugins import openai


async def main(base_url: str, model: str, voice: str, text: str, output: str) -> None:
    tts = openai.TTS(
        base_url=base_url, api_key="none", model=model, voice=voice, response_format="pcm"
    )
    async with tts.synthesize(text) as stream:
        frame = await stream.collect()
    Path(output).write_bytes(frame.to_wav_bytes())
    await tts.aclose()


asyncio.run(main(*sys.argv[1:]))
