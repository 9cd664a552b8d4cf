"""What users may rely on: names, signatures, errors, and an import that costs nothing."""

import inspect
import subprocess
import sys

import pytest

import stepflow_tts
from stepflow_tts import StepFlowTTS
from stepflow_tts.errors import StepFlowError


def run_python(code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return process.stdout.strip()


def test_public_names() -> None:
    assert set(stepflow_tts.__all__) == {
        "AudioError",
        "CheckpointError",
        "CheckpointFormatError",
        "CheckpointNotFoundError",
        "DownloadError",
        "InputError",
        "MissingDependencyError",
        "OptionError",
        "Speech",
        "StepFlowError",
        "StepFlowTTS",
        "SynthesisError",
        "TextError",
        "Voice",
        "__version__",
    }
    assert dir(stepflow_tts) == sorted(stepflow_tts.__all__)
    for name in stepflow_tts.__all__:
        getattr(stepflow_tts, name)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'StepFlow'"):
        stepflow_tts.StepFlow  # noqa: B018
    with pytest.raises(ImportError, match="StepFlow"):
        exec("from stepflow_tts import StepFlow")


def test_importing_loads_no_torch_and_is_quick() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import stepflow_tts; "
        "heavy = {'torch', 'numpy', 'huggingface_hub', 'phonemizer'} & set(sys.modules); "
        "print(time.perf_counter() - start, *heavy)"
    )
    outputs = [run_python(code).split() for _ in range(3)]

    assert [output[1:] for output in outputs] == [[], [], []]
    assert min(float(output[0]) for output in outputs) < 0.3


def test_importing_everything_leaves_the_process_as_it_was() -> None:
    code = (
        "import logging, threading, torch; before = torch.get_num_threads(); "
        "import stepflow_tts; stepflow_tts.StepFlowTTS; "
        "print(torch.get_num_threads() == before, threading.active_count(), "
        "logging.getLogger().handlers)"
    )
    assert run_python(code) == "True 1 []"


def parameters(function: object) -> dict[str, object]:
    """Names and defaults; keyword-only names carry a star."""
    return {
        ("*" if p.kind is p.KEYWORD_ONLY else "") + p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    }


def test_signatures() -> None:
    assert parameters(StepFlowTTS.from_pretrained) == {
        "source": None,
        "*device": None,
        "*revision": None,
        "*token": None,
        "*cache_dir": None,
        "*local_files_only": False,
        "*lexicon": None,
    }
    synthesize = {
        "text": inspect.Parameter.empty,
        "voice": None,
        "*num_steps": 1,
        "*cfg_strength": 0.0,
        "*speed": 1.0,
        "*seed": 0,
        "*language": None,
        "*pause_seconds": None,
        "*markup": "plain",
    }
    assert parameters(StepFlowTTS.synthesize) == synthesize
    assert parameters(StepFlowTTS.stream) == synthesize
    assert list(parameters(StepFlowTTS.save_pretrained)) == ["folder"]
    assert list(parameters(StepFlowTTS.to)) == ["device"]
    assert next(iter(parameters(StepFlowTTS.encode_voice))) == "audio"


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("TextError", (stepflow_tts.InputError, ValueError)),
        ("AudioError", (stepflow_tts.InputError, ValueError)),
        ("OptionError", (stepflow_tts.InputError, ValueError)),
        ("CheckpointNotFoundError", (stepflow_tts.CheckpointError, FileNotFoundError)),
        ("CheckpointFormatError", (stepflow_tts.CheckpointError, ValueError)),
        ("DownloadError", (stepflow_tts.CheckpointError, ConnectionError)),
        ("MissingDependencyError", (StepFlowError, ImportError)),
        ("SynthesisError", (StepFlowError, RuntimeError)),
    ],
)
def test_errors_can_be_caught_as_ours_and_as_builtins(
    name: str, bases: tuple[type[Exception], ...]
) -> None:
    error = getattr(stepflow_tts, name)

    assert issubclass(error, StepFlowError)
    for base in bases:
        assert issubclass(error, base)
