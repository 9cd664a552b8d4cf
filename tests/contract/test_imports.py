"""What importing does beyond the public names, which test_public_api holds."""

import pkgutil
import subprocess
import sys

import stepflow_tts

MODULES = [
    module.name
    for module in pkgutil.walk_packages(stepflow_tts.__path__, "stepflow_tts.")
    if not module.name.endswith("__main__")
]


def in_fresh_process(code: str) -> str:
    """The standard output of `code` in an interpreter of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_help_version_and_wrong_usage_load_no_torch() -> None:
    code = """
import sys
from stepflow_tts.cli import main
for argv in (["--version"], ["say", "--help"], ["say"]):
    try:
        main(argv)
    except SystemExit:
        pass
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    assert in_fresh_process(code).startswith(f"stepflow-tts {stepflow_tts.__version__}")


def test_every_module_imports_and_leaves_the_process_as_it_was() -> None:
    assert {"stepflow_tts.pipeline", "stepflow_tts.training.recipe"} <= set(MODULES)
    code = f"""
import importlib, logging, signal, threading, warnings, torch
def state():
    return [
        torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),
        torch.is_grad_enabled(), threading.active_count(), signal.getsignal(signal.SIGTERM),
        logging.getLogger().level, list(logging.getLogger().handlers),
    ]
before = state()
for name in {MODULES!r}:
    importlib.import_module(name)
assert state() == before, (before, state())
"""
    in_fresh_process(code)


def test_a_torch_of_another_cuda_release_than_torchaudio_s_does_not_matter() -> None:
    """torchaudio refuses it, as pip's newest pair of the two did; here even vocos can be imported."""
    code = """
import torch
torch.version.cuda = "99.9"
import stepflow_tts.models.vocoder
assert torch.version.cuda == "99.9"
import torchaudio
print(torchaudio.functional.resample(torch.zeros(4), 2, 1).shape)
"""
    assert in_fresh_process(code) == "torch.Size([2])\n"
