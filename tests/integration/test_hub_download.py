"""Checkpoints from the Hub: its real client against a server on the loopback interface."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError, DownloadError
from stepflow_tts.hub import load_checkpoint, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/voice"


@dataclass
class Hub:
    """A repository as the Hub serves it, and how it misbehaves."""

    files: dict[str, bytes]
    url: str = ""
    repo_error: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    cuts: dict[str, int] = field(default_factory=dict)  # how often a file's transfer breaks off
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


class Handler(BaseHTTPRequestHandler):
    """The routes that the client uses: revision, tree, and HEAD and GET of files."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers = {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.hub.requests.append((self.command, path))
        self.hub.tokens.add(self.headers.get("Authorization"))
        if self.hub.repo_error is not None:
            status, code = self.hub.repo_error
            self.reply(status, X_Error_Code=code, X_Error_Message=f"the server says {code}")
        elif path.startswith(f"api/models/{REPO}/"):
            self.list_files(path.removeprefix(f"api/models/{REPO}/"))
        elif path.startswith(f"{REPO}/resolve/"):
            revision, _, name = path.removeprefix(f"{REPO}/resolve/").partition("/")
            self.send_file(revision, name)
        else:
            self.reply(404, X_Error_Code="RepoNotFound")

    def list_files(self, route: str) -> None:
        kind, _, revision = route.partition("/")
        names = sorted(self.hub.files)
        if revision not in ("main", COMMIT):
            self.reply(404, X_Error_Code="RevisionNotFound")
        elif kind == "revision":
            info = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        else:
            tree = [
                {"type": "file", "path": n, "size": len(self.hub.files[n]), "oid": "0" * 40}
                for n in names
            ]
            self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")

    def send_file(self, revision: str, name: str) -> None:
        if revision not in ("main", COMMIT):
            self.reply(404, X_Error_Code="RevisionNotFound")
        elif name not in self.hub.files:
            self.reply(404, X_Error_Code="EntryNotFound")
        else:
            self.send_bytes(name, self.hub.files[name])

    def send_bytes(self, name: str, data: bytes) -> None:
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if self.command == "HEAD" or not self.hub.cuts.get(name):
            status = 206 if start else 200
            end = len(data) - 1
            span = {"Content_Range": f"bytes {start}-{end}/{len(data)}"} if start else {}
            self.reply(status, data[start:], ETag=etag, **span)
            return
        self.hub.cuts[name] -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if start == 0:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def hub(checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server with a checkpoint and one file that is none of ours; the client is pointed at it."""
    paths = [p for p in checkpoint_folder.rglob("*") if p.is_file()]
    files = {p.relative_to(checkpoint_folder).as_posix(): p.read_bytes() for p in paths}
    hub = Hub({**files, "training_state.bin": b"never asked for"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    # The client reads its environment when it is imported, which has happened already.
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's attempts
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_holds_the_checkpoint_and_nothing_else(
    hub: Hub, checkpoint_folder: Path, tmp_path: Path
) -> None:
    folder = resolve(REPO, cache_dir=tmp_path)

    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == set(hub.files) - {"training_state.bin"}
    for name in names:
        assert (folder / name).read_bytes() == (checkpoint_folder / name).read_bytes()
    assert list(load_checkpoint(folder).voices) == ["anna", "ben"]


def test_a_second_load_fetches_no_file_and_a_third_needs_no_network(
    hub: Hub, tmp_path: Path
) -> None:
    first = resolve(REPO, cache_dir=tmp_path)
    hub.requests.clear()

    assert resolve(REPO, cache_dir=tmp_path) == first
    assert not [path for method, path in hub.requests if method == "GET" and "resolve" in path]
    hub.requests.clear()
    assert resolve(REPO, cache_dir=tmp_path, local_files_only=True) == first
    assert hub.requests == []


def test_a_cached_checkpoint_is_used_when_the_hub_is_down(hub: Hub, tmp_path: Path) -> None:
    first = resolve(REPO, cache_dir=tmp_path)
    hub.repo_error = (503, "Overloaded")

    assert resolve(REPO, cache_dir=tmp_path) == first


def test_a_commit_and_a_token_are_passed_on(hub: Hub, tmp_path: Path) -> None:
    resolve(REPO, cache_dir=tmp_path, revision=COMMIT, token="hf_secret")

    assert hub.tokens == {"Bearer hf_secret"}
    assert not [path for _, path in hub.requests if "main" in path]


def test_a_connection_that_breaks_once_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = {"model.safetensors": 1}

    load_checkpoint(resolve(REPO, cache_dir=tmp_path))

    assert hub.requests.count(("GET", f"{REPO}/resolve/{COMMIT}/model.safetensors")) == 2


def test_a_connection_that_keeps_breaking(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = {"model.safetensors": 1000}

    with pytest.raises(DownloadError, match=r"'someone/voice' failed.*Try again"):
        resolve(REPO, cache_dir=tmp_path)

    hub.cuts = {}
    load_checkpoint(resolve(REPO, cache_dir=tmp_path))  # nothing broken was kept


def test_half_a_download_is_not_used_offline(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = {"model.safetensors": 1000}
    with pytest.raises(DownloadError):
        resolve(REPO, cache_dir=tmp_path)

    with pytest.raises(CheckpointNotFoundError, match="not whole"):
        resolve(REPO, cache_dir=tmp_path, local_files_only=True)


def test_a_repository_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="'someone/vioce' is neither a folder"):
        resolve("someone/vioce", cache_dir=tmp_path)


def test_a_revision_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no revision 'v9'"):
        resolve(REPO, revision="v9", cache_dir=tmp_path)


def test_a_gated_repository(hub: Hub, tmp_path: Path) -> None:
    hub.repo_error = (403, "GatedRepo")

    with pytest.raises(DownloadError, match=r"gated.*Accept its conditions.*token="):
        resolve(REPO, cache_dir=tmp_path)


def test_a_private_repository_without_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.repo_error = (401, "RepoNotFound")

    with pytest.raises(CheckpointNotFoundError, match="for a private one pass token="):
        resolve(REPO, cache_dir=tmp_path)


def test_a_repository_of_something_else_is_refused_before_its_weights_are_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    hub.files["config.json"] = b'{"model_type": "bert"}'

    with pytest.raises(CheckpointFormatError, match="unknown key 'model_type'"):
        resolve(REPO, cache_dir=tmp_path)

    assert {path.rsplit("/", 1)[1] for _, path in hub.requests} == {"config.json"}


def test_a_repository_without_config(hub: Hub, tmp_path: Path) -> None:
    del hub.files["config.json"]

    with pytest.raises(CheckpointNotFoundError, match=r"has no config\.json"):
        resolve(REPO, cache_dir=tmp_path)


def test_a_repository_without_weights(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]

    with pytest.raises(CheckpointNotFoundError, match=r"model\.safetensors is missing"):
        load_checkpoint(resolve(REPO, cache_dir=tmp_path))


def test_a_corrupted_file(hub: Hub, tmp_path: Path) -> None:
    damaged = bytearray(hub.files["model.safetensors"])
    damaged[-1] ^= 0x40
    hub.files["model.safetensors"] = bytes(damaged)

    with pytest.raises(CheckpointFormatError, match=r"model\.safetensors is damaged"):
        load_checkpoint(resolve(REPO, cache_dir=tmp_path))


def test_a_server_that_is_down(hub: Hub, tmp_path: Path) -> None:
    hub.repo_error = (500, "Broken")

    with pytest.raises(DownloadError, match=r"could not be reached.*500"):
        resolve(REPO, cache_dir=tmp_path)


def test_nobody_listens(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )

    with pytest.raises(DownloadError, match="could not be reached"):
        resolve(REPO, cache_dir=tmp_path)


@pytest.mark.parametrize("source", ["", "two words", "org/näme", "-x/y", "a--b"])
def test_what_cannot_be_a_hub_id(hub: Hub, source: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        resolve(source, cache_dir=tmp_path)
    assert hub.requests == []


def download_in_a_new_process(hub: Hub, home: Path, **variables: str) -> Path:
    """What `download_snapshot` gives when the client has read these variables by itself."""
    script = (
        "import sys; from stepflow_tts.download import download_snapshot as download; "
        "print(download(sys.argv[1], None, None, None, False))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, REPO],
        env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.url, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return Path(process.stdout.strip())


def test_the_environment_of_the_hub_client_is_respected(hub: Hub, tmp_path: Path) -> None:
    folder = download_in_a_new_process(hub, tmp_path)
    assert folder.is_relative_to(tmp_path / "hub")
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]

    hub.requests.clear()
    assert download_in_a_new_process(hub, tmp_path, HF_HUB_OFFLINE="1") == folder
    assert hub.requests == []


def test_offline_without_a_cached_copy(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(CheckpointNotFoundError, match="HF_HUB_OFFLINE"):
        resolve(REPO, cache_dir=tmp_path)
    assert hub.requests == []
