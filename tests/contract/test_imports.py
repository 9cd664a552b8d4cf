"""What importing the package does, and what it must not do."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import stepflow_tts

PUBLIC = [
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
]
HEAVY = {"torch", "torchaudio", "vocos", "numpy", "soundfile", "phonemizer", "huggingface_hub"}

IMPORT = """
import json, logging, sys, time
before = set(sys.modules)
start = time.perf_counter()
import stepflow_tts
seconds = time.perf_counter() - start
added = sorted({name.split(".")[0] for name in set(sys.modules) - before})
print(json.dumps([seconds, added, len(logging.getLogger().handlers)]))
"""


def in_fresh_process(code: str) -> str:
    """The standard output of `code` in an interpreter of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    runs = [json.loads(in_fresh_process(IMPORT)) for _ in range(3)]
    assert min(seconds for seconds, _, _ in runs) < 0.3
    _, added, num_root_handlers = runs[0]
    assert not HEAVY & set(added)
    assert num_root_handlers == 0


def test_public_names() -> None:
    assert stepflow_tts.__all__ == PUBLIC
    assert dir(stepflow_tts) == sorted(PUBLIC)
    for name in PUBLIC:
        value = getattr(stepflow_tts, name)
        if isinstance(value, type):
            assert value.__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="synthesise"):
        stepflow_tts.synthesise  # noqa: B018


def test_help_and_version_load_no_torch() -> None:
    code = """
import sys
from stepflow_tts.cli import main
for argv in (["--version"], ["say", "--help"], ["say"]):
    try:
        main(argv)
    except SystemExit:
        pass
assert "torch" not in sys.modules
"""
    assert in_fresh_process(code).startswith(f"stepflow-tts {stepflow_tts.__version__}")


def test_every_module_imports_and_leaves_torch_as_it_was() -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(stepflow_tts.__path__, "stepflow_tts.")
        if not module.name.endswith("__main__")
    ]
    assert "stepflow_tts.pipeline" in names
    code = f"""
import importlib, logging, torch
def state():
    return [torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),
            torch.is_grad_enabled(), logging.getLogger().handlers, logging.getLogger().level]
before = state()
for name in {names!r}:
    importlib.import_module(name)
assert state() == before, (before, state())
"""
    in_fresh_process(code)


def test_errors_are_also_the_builtins_that_callers_expect() -> None:
    errors = importlib.import_module("stepflow_tts.errors")
    expected = {
        "InputError": ValueError,
        "TextError": ValueError,
        "AudioError": ValueError,
        "OptionError": ValueError,
        "CheckpointNotFoundError": FileNotFoundError,
        "CheckpointFormatError": ValueError,
        "DownloadError": ConnectionError,
        "MissingDependencyError": ImportError,
        "SynthesisError": RuntimeError,
    }
    for name, builtin in expected.items():
        assert issubclass(getattr(errors, name), errors.StepFlowError)
        assert issubclass(getattr(errors, name), builtin)
