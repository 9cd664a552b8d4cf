"""What the Dockerfile, the compose file and docs/deploy.md say fits the package and each other."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepflow_tts.cli import build_parser

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
UNIT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").partition("```ini\n")[2]


def instruction(keyword: str) -> str:
    """The arguments of the last instruction of this kind."""
    return re.findall(rf"^ *{keyword} (.*)$", DOCKERFILE, flags=re.MULTILINE)[-1]


def serve_options(command: list[str]) -> Any:
    """The options of a command line after `stepflow-tts`, as the command understands them."""
    return build_parser().parse_args(command)


def test_the_commands_of_image_compose_file_and_unit_are_understood() -> None:
    assert json.loads(instruction("ENTRYPOINT")) == ["stepflow-tts"]
    image = serve_options(json.loads(instruction("CMD")))
    assert (image.host, image.port) == ("0.0.0.0", 8000)
    assert image.no_auth is False
    server, wyoming = (serve_options(SERVICES[name]["command"]) for name in ("tts", "wyoming"))
    assert (server.host, server.port) == ("0.0.0.0", 8000)
    assert "tts" in server.allowed_host  # the name by which other services call it
    assert (wyoming.host, wyoming.port, wyoming.no_auth) == ("0.0.0.0", 10_200, True)
    (line,) = re.findall(r"^ExecStart=\S+/stepflow-tts (.*)$", UNIT, flags=re.MULTILINE)
    unit = serve_options(shlex.split(line))
    assert (unit.host, str(unit.tokens)) == ("127.0.0.1", "%d/tokens")


def test_the_image_installs_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", DOCKERFILE)
    assert {"serve", "wyoming"} <= set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_is_made_of_files_that_reach_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_health_is_asked_at_a_route_without_a_token() -> None:
    from stepflow_tts.server.gate import PUBLIC_PATHS

    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", instruction("HEALTHCHECK"))
    assert path in PUBLIC_PATHS
    assert json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])[:2] == ["python", "-c"]


def test_the_compose_file_gives_what_a_locked_container_needs() -> None:
    server = SERVICES["tts"]
    options = serve_options(server["command"])
    assert f"voices:{options.voices}" in server["volumes"]
    assert f"--mode 700 {options.voices}" in DOCKERFILE  # an empty volume takes its owner
    assert f"/run/secrets/{server['secrets'][0]}" == str(options.tokens)
    assert int(server["stop_grace_period"].removesuffix("s")) > options.drain
    for service in SERVICES.values():
        (tmp,) = service["tmpfs"]
        assert service["read_only"] is True
        assert "exec" in tmp.removeprefix("/tmp:").split(",")  # phonemizer loads a copy of espeak
        assert int(service["environment"]["OMP_NUM_THREADS"]) == service["cpus"]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    command = ["hadolint", str(ROOT / "Dockerfile")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stdout == ""
    assert result.returncode == 0
