"""Checkpoint folders: what is read back equals what was written, and damage is named."""

import errno
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stepflow_tts.config import CheckpointConfig
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError, OptionError
from stepflow_tts.hub import Checkpoint, load_checkpoint, resolve, save_checkpoint


def files_below(folder: Path) -> dict[str, str]:
    """Every file and what is in it."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def save(folder: Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float16) -> None:
    save_checkpoint(
        folder,
        checkpoint.config,
        checkpoint.model,
        checkpoint.vocoder,
        checkpoint.voices,
        card=checkpoint.card,
        dtype=dtype,
    )


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def test_saving_what_was_loaded_writes_the_same_files(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    save(tmp_path / "again", load_checkpoint(checkpoint_folder))

    written, again = files_below(checkpoint_folder), files_below(tmp_path / "again")
    voices = {"voices/anna.safetensors", "voices/ben.safetensors"}
    others = {"config.json", "model.safetensors", "vocoder.safetensors", "README.md"}
    assert set(written) == set(again) == voices | others
    assert {name: written[name] for name in others} == {name: again[name] for name in others}


def test_voices_survive_and_come_in_the_order_of_their_names(checkpoint_folder: Path) -> None:
    voices = load_checkpoint(checkpoint_folder).voices

    assert [(key, voice.name, voice.language) for key, voice in voices.items()] == [
        ("anna", "Anna", "en-us"),
        ("ben", "Ben", "en-gb"),
    ]
    assert voices["anna"].digest != voices["ben"].digest


def test_weights_are_float16_on_disk_and_float32_in_memory(checkpoint_folder: Path) -> None:
    on_disk = safetensors.torch.load_file(checkpoint_folder / "model.safetensors")
    model = load_checkpoint(checkpoint_folder).model

    assert {t.dtype for t in on_disk.values()} == {torch.float16}
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    for name, value in model.state_dict().items():
        assert torch.equal(value, on_disk[name].float()), name
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_float32_can_be_asked_for(checkpoint_folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    with torch.no_grad():
        checkpoint.model.null_style.fill_(1 / 3)

    save(tmp_path / "wide", checkpoint, dtype=torch.float32)

    again = load_checkpoint(tmp_path / "wide").model
    assert torch.equal(again.null_style, checkpoint.model.null_style)


def test_a_checkpoint_without_vocoder_and_voices(checkpoint_folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint_folder)
    config = replace(loaded.config, vocoder=None)

    save_checkpoint(tmp_path / "bare", config, loaded.model, None, {})

    assert set(files_below(tmp_path / "bare")) == {"config.json", "model.safetensors"}
    again = load_checkpoint(tmp_path / "bare")
    assert (again.vocoder, again.voices, again.card) == (None, {}, None)


def test_overwriting_replaces_the_checkpoint_and_nothing_else(
    checkpoint_copy: Path, tmp_path: Path
) -> None:
    (checkpoint_copy / "notes.txt").write_text("mine")
    loaded = load_checkpoint(checkpoint_copy)

    save_checkpoint(
        checkpoint_copy, loaded.config, loaded.model, loaded.vocoder, {"eve": loaded.voices["ben"]}
    )

    assert list(load_checkpoint(checkpoint_copy).voices) == ["eve"]
    assert (checkpoint_copy / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_things_is_not_touched(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("irreplaceable")

    with pytest.raises(OptionError, match=r"thesis\.tex"):
        save(tmp_path, load_checkpoint(checkpoint_folder))

    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_fresh_clone_of_an_empty_repository_is_filled(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs\n")

    save(tmp_path, load_checkpoint(checkpoint_folder))

    assert load_checkpoint(tmp_path).card == "# A test\n"


def test_a_failed_save_leaves_no_file(checkpoint_folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    with torch.no_grad():
        checkpoint.model.null_style[0] = 70_000.0  # beyond float16

    with pytest.raises(CheckpointFormatError, match=r"null_style.*7e\+04.*float32"):
        save(tmp_path / "new", checkpoint)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_to_a_full_disk(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stepflow_tts.hub.write_atomic", write_to_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "new", load_checkpoint(checkpoint_folder))

    assert list(tmp_path.iterdir()) == []


def test_a_voice_cannot_leave_the_folder(checkpoint_folder: Path, tmp_path: Path) -> None:
    c = load_checkpoint(checkpoint_folder)

    with pytest.raises(OptionError, match=r"'\.\./x'"):
        save_checkpoint(tmp_path / "new", c.config, c.model, c.vocoder, {"../x": c.voices["ben"]})

    assert list(tmp_path.iterdir()) == []


def test_a_save_cut_short_leaves_nothing_readable(
    checkpoint_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(checkpoint_copy)
    moves = []

    def crash_at_second_move(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) > 1 and Path(target).parent == checkpoint_copy:
            raise KeyboardInterrupt
        real_replace(source, target)

    real_replace = os.replace
    monkeypatch.setattr("stepflow_tts.hub.os.replace", crash_at_second_move)
    with pytest.raises(KeyboardInterrupt):
        save(checkpoint_copy, checkpoint)

    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        load_checkpoint(checkpoint_copy)
    assert not list(checkpoint_copy.glob(".partial*"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocoder.safetensors"])
def test_a_missing_file_is_named(checkpoint_copy: Path, name: str) -> None:
    (checkpoint_copy / name).unlink()

    with pytest.raises(CheckpointNotFoundError, match=rf"{name} is missing"):
        load_checkpoint(checkpoint_copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "voices/ben.safetensors"])
def test_half_a_file(checkpoint_copy: Path, name: str) -> None:
    data = (checkpoint_copy / name).read_bytes()
    (checkpoint_copy / name).write_bytes(data[: len(data) // 2])

    with pytest.raises(CheckpointFormatError, match=name):
        load_checkpoint(checkpoint_copy)


@pytest.mark.parametrize("name", ["model.safetensors", "vocoder.safetensors"])
def test_one_flipped_bit_is_noticed(checkpoint_copy: Path, name: str) -> None:
    data = bytearray((checkpoint_copy / name).read_bytes())
    data[-101] ^= 1
    (checkpoint_copy / name).write_bytes(data)

    with pytest.raises(CheckpointFormatError, match=rf"{name} is damaged.*checksum"):
        load_checkpoint(checkpoint_copy)


class Opened:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_pickle_named_safetensors_is_refused_unopened(
    checkpoint_copy: Path, tmp_path: Path, dump: Callable[[object, object], None]
) -> None:
    with open(checkpoint_copy / "model.safetensors", "wb") as file:
        dump({"weight": Opened(str(tmp_path / "ran"))}, file)

    with pytest.raises(CheckpointFormatError, match=r"model\.safetensors is a pickle"):
        load_checkpoint(checkpoint_copy)
    assert not (tmp_path / "ran").exists()


def test_a_header_whose_length_starts_like_a_pickle_is_read(checkpoint_copy: Path) -> None:
    path = checkpoint_copy / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())  # no map of what is written over
    for padding in range(0, 400, 8):
        safetensors.torch.save_file(tensors, path, metadata={"x": "y" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80

    load_checkpoint(checkpoint_copy)


def test_a_git_lfs_pointer_says_what_to_run(checkpoint_copy: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (checkpoint_copy / "model.safetensors").write_text(pointer)

    with pytest.raises(CheckpointFormatError, match="git lfs pull"):
        load_checkpoint(checkpoint_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(null_style=torch.zeros(17)), r"'null_style' is .*\(17,\).*\(16,\)"),
        (lambda t: t.update(null_style=torch.zeros(16, dtype=torch.int32)), "int32"),
        (
            lambda t: t.update(null_style=torch.full((16,), torch.nan)),
            "'null_style' has non-finite",
        ),
        (lambda t: t.pop("null_style"), "lacks the tensor 'null_style'"),
        (lambda t: t.update(extra=torch.zeros(1)), "'extra', which is not expected"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    checkpoint_copy: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit_tensors(checkpoint_copy, change)

    with pytest.raises(CheckpointFormatError, match=message):
        load_checkpoint(checkpoint_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(colour="red"), "unknown key 'colour'"),
        (lambda c: c["model"].update(width=3), r"config\.json\.model has the unknown key 'width'"),
        (lambda c: c.update(format_version=2, colour="red"), "format version 2.*reads 1.*Upgrade"),
        (lambda c: c.pop("symbols"), "lacks the key 'symbols'"),
        (lambda c: c["model"].update(dim="32"), r"model\.dim is '32'; it must be of type int"),
        (lambda c: c["model"].update(dim=0), r"model\.dim is 0; it must be above 0"),
        (lambda c: c["model"].update(dim=10**12), r"model\.dim is 1000000000000"),
        (lambda c: c["model"].update(num_heads=3), r"model\.dim must be a multiple of 2 num_heads"),
        (lambda c: c["flow"].update(std=float("nan")), r"flow\.std is nan"),
        (lambda c: c.update(num_steps=[1, -2]), "num_steps is -2"),
        (lambda c: c.update(conditioning="magic"), "'magic'; allowed: 'time', 'token', 'table'"),
    ],
)
def test_configs_that_cannot_be_used_are_named(
    checkpoint_copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_config(checkpoint_copy, change)

    with pytest.raises(CheckpointFormatError, match=message):
        load_checkpoint(checkpoint_copy)


@pytest.mark.parametrize("text", ["[]", "", '{"symbols": ', "\udcff"])
def test_configs_that_are_no_json_object(checkpoint_copy: Path, text: str) -> None:
    (checkpoint_copy / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(CheckpointFormatError, match=r"config\.json"):
        load_checkpoint(checkpoint_copy)


def test_every_setting_survives_the_trip_through_json(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(checkpoint_folder)
    flow = replace(loaded.config.flow, mean=-3.25, std=2.5, noise_scale=0.8)
    config: CheckpointConfig = replace(loaded.config, flow=flow, languages=("en-gb",))

    save_checkpoint(tmp_path / "c", config, loaded.model, loaded.vocoder, {})

    assert load_checkpoint(tmp_path / "c").config == config


def test_a_folder_is_found_by_text_and_by_path(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint_folder.parent)
    monkeypatch.setenv("HOME", str(checkpoint_folder.parent))

    assert resolve(checkpoint_folder) == checkpoint_folder
    assert resolve(checkpoint_folder.name) == Path(checkpoint_folder.name)
    assert resolve(f"~/{checkpoint_folder.name}") == checkpoint_folder


@pytest.mark.parametrize(
    "source", ["./nowhere", "/no/where", "a/b/c", "~/nowhere", "C:\\models", "x/", Path("org/name")]
)
def test_what_looks_like_a_path_never_goes_to_the_hub(source: str | Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"folder .* does not exist"):
        resolve(source)


def test_a_file_in_place_of_the_folder(checkpoint_folder: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="is a file"):
        resolve(checkpoint_folder / "config.json")


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json is missing"):
        load_checkpoint(resolve(tmp_path))


def test_a_revision_is_for_the_hub_only(checkpoint_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"revision='v1'.*local folder"):
        resolve(checkpoint_folder, revision="v1")


def test_no_source_is_the_bundled_checkpoint(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepflow_tts.hub.importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="no bundled checkpoint"):
        resolve(None)

    shutil.copytree(checkpoint_folder, tmp_path / "weights")
    assert resolve(None) == tmp_path / "weights"
    with pytest.raises(OptionError, match=r"revision='v1'.*the bundled one"):
        resolve(None, revision="v1")
