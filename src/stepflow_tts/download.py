"""Checkpoints from the Hugging Face Hub, and its client's errors in words of our own."""

import os
from pathlib import Path

import huggingface_hub
import huggingface_hub.errors as hub_errors

from stepflow_tts.checkpoint_files import (
    CARD_FILES,
    CONFIG_FILE,
    MODEL_FILE,
    VOCODER_FILE,
    VOICES_FOLDER,
    read_config,
)
from stepflow_tts.errors import CheckpointError, CheckpointNotFoundError, DownloadError

PATTERNS = [CONFIG_FILE, MODEL_FILE, VOCODER_FILE, f"{VOICES_FOLDER}/*.safetensors", *CARD_FILES]


def download_snapshot(
    repo_id: str,
    revision: str | None,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    """The local copy of the checkpoint `repo_id`; its config is read before the weights are fetched.

    Args:
        repo_id: such as "org/name".
        revision: branch, tag or commit; None for the newest.
        token: access token; None takes the one of `hf auth login`.
        cache_dir: where downloads are kept; None for the Hub client's own place.
        local_files_only: True takes what the cache has.

    Raises:
        CheckpointNotFoundError: no such repository or revision, or not in the cache.
        CheckpointFormatError: its config is not one that this version reads.
        DownloadError: the Hub could not be reached, or refused.
    """
    cache = None if cache_dir is None else str(cache_dir)
    try:
        config_path = huggingface_hub.hf_hub_download(
            repo_id,
            CONFIG_FILE,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=local_files_only,
        )
        read_config(Path(config_path))
        folder = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=local_files_only,
            allow_patterns=PATTERNS,
        )
    except CheckpointError:
        raise
    except (
        hub_errors.HFValidationError,
        hub_errors.EntryNotFoundError,
        hub_errors.HTTPError,  # type: ignore[attr-defined]  # the HTTP library's own, whichever it is
        OSError,  # a cut connection, a full disk, a failed consistency check
        RuntimeError,  # hf_xet, which large files come through, after minutes of attempts
    ) as error:
        offline = local_files_only or huggingface_hub.constants.HF_HUB_OFFLINE
        raise _hub_error(error, repo_id, revision, offline) from error
    return Path(folder)


def _hub_error(
    error: Exception, repo_id: str, revision: str | None, offline: bool
) -> CheckpointError:
    """What `error` of the Hub's client means for the caller, and what to do."""
    unreachable = (
        CheckpointNotFoundError(
            f"{repo_id!r} is not (or not whole) in the local cache, and downloading is switched off. "
            "Load it once without local_files_only and HF_HUB_OFFLINE."
        )
        if offline
        else DownloadError(
            f"The Hub could not be reached for {repo_id!r}, and it is not in the local cache: "
            f"{error.__cause__ or error}. Check the connection, and HF_ENDPOINT if it is set."
        )
    )
    neither = f"{repo_id!r} is neither a folder here nor a"
    meanings: list[tuple[type[Exception], CheckpointError]] = [  # subclasses first
        (
            hub_errors.HFValidationError,
            CheckpointNotFoundError(f"{neither} possible Hub id such as 'org/name'."),
        ),
        (
            hub_errors.GatedRepoError,
            DownloadError(
                f"{repo_id!r} is gated on the Hub. Accept its conditions on its page, then pass "
                "token=... or run hf auth login."
            ),
        ),
        (
            hub_errors.RepositoryNotFoundError,
            CheckpointNotFoundError(
                f"{neither} Hub repository that you can see. Check the spelling; for a private one "
                "pass token=... or run hf auth login."
            ),
        ),
        (
            hub_errors.RevisionNotFoundError,
            CheckpointNotFoundError(
                f"{repo_id!r} has no revision {revision!r} on the Hub. Leave it out for the newest."
            ),
        ),
        (hub_errors.LocalEntryNotFoundError, unreachable),
        (
            hub_errors.EntryNotFoundError,
            CheckpointNotFoundError(
                f"The Hub repository {repo_id!r} has no {CONFIG_FILE}: it holds no checkpoint."
            ),
        ),
    ]
    other = DownloadError(
        f"Downloading {repo_id!r} failed: {error}. Try again; what arrived is kept."
    )
    return next((meaning for kind, meaning in meanings if isinstance(error, kind)), other)
