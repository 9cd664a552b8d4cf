"""Where the models that score come from: an installed package, a path or the Hub.

None of them is imported, read or fetched before it is asked for.
"""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from stepflow_tts.errors import CheckpointNotFoundError, DownloadError, MissingDependencyError

INSTALL = "pip install 'stepflow-tts[eval]'"


def import_package(name: str, purpose: str, install: str = INSTALL) -> ModuleType:
    """The module called `name`.

    Raises:
        MissingDependencyError: it, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name, purpose, install, str(error)) from error


def find_file(
    source: str | None, package: str, inside: str, purpose: str, install: str = INSTALL
) -> Path:
    """The file with a model's weights.

    Args:
        source: a path, "org/name/file" on the Hub, or None for the file inside `package`.
        package: an installed package, which is not imported.
        inside: the file's path below that package.
        purpose: what it is for, in an error's words.
        install: the command that installs the package.

    Raises:
        MissingDependencyError: the package is not installed, or has no such file.
        CheckpointNotFoundError: `source` is neither a file nor possible on the Hub.
        DownloadError: the Hub could not be reached, or did not give the file.
    """
    if source is None:
        spec = importlib.util.find_spec(package)
        folders = [] if spec is None else list(spec.submodule_search_locations or [])
        found = [Path(folder) / inside for folder in folders if (Path(folder) / inside).is_file()]
        if not found:
            raise _missing(package, purpose, install, f"there is no {package}/{inside}")
        return found[0]
    path = Path(source).expanduser()
    if path.is_file():
        return path
    on_hub = re.fullmatch(r"([\w.-]+/[\w.-]+)/(.+)", source)
    if on_hub is None or source.startswith((".", "~")):
        raise CheckpointNotFoundError(
            f"There is no file {source!r} for {purpose}. Name a file, or one on the Hub as "
            "'org/name/file'; leave the option out for the one of its package."
        )
    return _download(on_hub[1], on_hub[2])


def _download(repo_id: str, filename: str) -> Path:
    """A file of a Hub repository, from the cache if it is there."""
    import huggingface_hub
    import huggingface_hub.errors as hub_errors

    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename))
    except (
        hub_errors.HFValidationError,
        hub_errors.EntryNotFoundError,
        hub_errors.HTTPError,  # type: ignore[attr-defined]  # the HTTP library's own
        OSError,
        RuntimeError,
    ) as error:
        raise DownloadError(
            f"{filename!r} is no file here and could not be had from {repo_id!r} on the Hub: "
            f"{error}. Check the spelling and the connection, or name a local file."
        ) from error


def _missing(package: str, purpose: str, install: str, reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{purpose} needs the package {package} ({reason}). Install it with\n    {install}\n"
        "or name the scores that you want without it, such as --metrics wer,sim."
    )
