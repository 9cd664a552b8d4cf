"""Every error that this package raises on purpose.

StepFlowError
├── InputError (ValueError)                 the caller's input; exit code 2, HTTP 400
│   ├── TextError                           text that cannot be spoken
│   ├── AudioError                          reference audio that cannot be used
│   └── OptionError                         a setting outside its range
├── CheckpointError
│   ├── CheckpointNotFoundError (FileNotFoundError)
│   ├── CheckpointFormatError (ValueError)  unknown key, wrong shape, damaged file
│   └── DownloadError (ConnectionError)     the Hub could not be reached, or refused
├── MissingDependencyError (ImportError)    the message holds the pip command
└── SynthesisError (RuntimeError)           the model produced something that is not speech

A message says what happened, the value received, what is allowed and what to do.
"""


class StepFlowError(Exception):
    """Base of all errors raised by stepflow_tts."""


class InputError(StepFlowError, ValueError):
    """Something that the caller passed cannot be used."""


class TextError(InputError):
    """The text is empty, too long, or has nothing that can be spoken."""


class AudioError(InputError):
    """The reference audio is missing, unreadable, silent or too short."""


class OptionError(InputError):
    """A setting is outside what is allowed."""


class CheckpointError(StepFlowError):
    """A checkpoint could not be found, fetched or understood."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint at the place that was named."""


class CheckpointFormatError(CheckpointError, ValueError):
    """A checkpoint's config or tensors are not what this version reads."""


class DownloadError(CheckpointError, ConnectionError):
    """The Hub could not be reached, or did not give the file."""


class MissingDependencyError(StepFlowError, ImportError):
    """An optional package is needed; the message holds the pip command."""


class SynthesisError(StepFlowError, RuntimeError):
    """The model's output is not speech (non-finite samples, or silence where words should be)."""
