"""One loaded model, and one server that speaks with it, for each file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, running

from stepflow_tts import StepFlowTTS


@pytest.fixture(scope="module")
def tts(checkpoint_folder: Path) -> StepFlowTTS:
    return StepFlowTTS.from_pretrained(checkpoint_folder, device="cpu")


@pytest.fixture(scope="module")
def server(tts: StepFlowTTS) -> Iterator[Running]:
    with running(tts) as server:
        yield server
