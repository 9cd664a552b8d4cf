"""Sound in and out, and its features.

torchaudio compares the CUDA release it was built for with that of PyTorch and refuses to be imported
when they differ, as they do whenever pip takes a PyTorch newer than the last torchaudio. Only its own
CUDA kernels could mind, and nothing here uses those: resampling and mel filters are plain PyTorch.
So this package, which every other module that needs torchaudio or vocos imports first, imports it in
a way that leaves that comparison out.
"""

import torch

try:
    import torchaudio
except RuntimeError as error:
    if "different CUDA versions" not in str(error):
        raise
    cuda, torch.version.cuda = torch.version.cuda, None  # what the comparison takes for a CPU build
    try:
        import torchaudio  # noqa: F401
    finally:
        torch.version.cuda = cuda
