"""What is shipped is what is written down: lock file, image, compose file, default configuration."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    }


def test_the_lock_file_has_every_dependency_with_hashes():
    pins = locked()
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["postgres"]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(pins[name]), name
    blocks = re.split(r"^(?=[\w.-]+==)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    for block in blocks:
        if "==" in block:
            assert "--hash=sha256:" in block, block[:60]
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_packaged_configuration_is_the_documented_one():
    assert (ROOT / "config/headgate.yaml").read_text() == (ROOT / "app/settings/headgate.yaml").read_text()


def test_the_console_is_in_the_wheel():
    """Every file below ``app`` goes in, whatever its kind; nothing keeps one out."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["app"]}
    kinds = {path.suffix for path in (ROOT / "app/admin/console").rglob("*") if path.is_file()}
    assert kinds == {".html", ".js", ".css", ".svg"}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not any(line.strip("/") in {"console", "js", "css"} or line.endswith((".js", ".css")) for line in ignored)


def test_dependencies_each_have_a_reason():
    section = re.search(
        r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    assert section is not None
    for line in section.group(1).splitlines():
        assert re.search(r'",\s+# \w+', line), line


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines]


def test_the_dockerfile_parses_and_its_sources_exist():
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}
    steps = instructions()
    assert {name for name, _ in steps} <= known
    for name, arguments in steps:
        if name == "COPY" and "--from" not in arguments:
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
    users = [arguments for name, arguments in steps if name == "USER"]
    assert users == ["10001"]
    assert json.loads(dict(steps)["CMD"]) == ["headgate", "serve"]


COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_has_what_the_documentation_says_and_its_settings_are_ours():
    services = COMPOSE["services"]
    assert set(services) == {"gateway", "valkey", "postgres", "prometheus", "grafana"}
    known = {"CONFIG", "DATABASE_URL_FILE", "REDIS_URL", "METRICS_TOKEN_FILE", "WORKERS"}
    names = {name.removeprefix("HEADGATE_") for name in services["gateway"]["environment"]}
    assert names - {"OPENAI_API_KEY"} <= known
    for service in services.values():
        for volume in service.get("volumes", []):
            source, _, mode = (*volume.split(":"), "")[:3]
            if source.startswith("./"):
                assert (ROOT / source).exists() and mode == "ro", volume
            else:
                assert source in COMPOSE["volumes"], volume
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        # An image that can change by itself is not what was tried.
        assert re.search(r":v?\d", service.get("image", ":1")), service


def test_what_watches_cannot_reach_the_databases_and_only_this_machine_it():
    services = COMPOSE["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["networks"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        assert services[name]["healthcheck"] and services[name]["read_only"] is True
    assert services["gateway"]["networks"] == ["default", "monitoring"]
    assert all("networks" not in services[name] for name in ("valkey", "postgres"))


def test_secrets_are_made_once_each_and_none_has_a_default(tmp_path):
    folder = tmp_path / "compose"
    folder.mkdir()
    script = shutil.copy(ROOT / "deploy/compose/make-secrets", folder)

    def made() -> dict[str, str]:
        subprocess.run(["sh", script], check=True, capture_output=True)
        return {path.name: path.read_text() for path in (folder / "secrets").iterdir()}

    first = made()
    assert set(first) == set(COMPOSE["secrets"])
    assert {f"./deploy/compose/secrets/{name}" for name in first} == {
        secret["file"] for secret in COMPOSE["secrets"].values()
    }
    assert first["database_password"] in first["database_url"]
    assert len(set(first.values())) == len(first) and all(len(value) >= 48 for value in first.values())
    assert made() == first
    # One that an older version did not know is added to those that are there.
    (folder / "secrets/metrics_token").unlink()
    again = made()
    assert again.pop("metrics_token") != first.pop("metrics_token") and again == first
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("/run/secrets/"), name


@pytest.mark.long
def test_the_commands_of_the_dockerfile_work_in_a_virtual_environment(tmp_path):
    """There may be no docker engine: the image's own steps, run by hand."""
    venv = tmp_path / "headgate"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    for name, arguments in instructions():
        if name != "RUN" or "/opt/headgate" not in arguments:
            continue
        for command in arguments.replace("/opt/headgate", str(venv)).split("&&"):
            words = command.split()
            if words[:2] != ["python", "-m"]:
                subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    shown = subprocess.run([str(venv / "bin/headgate"), "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == PROJECT["version"]
    hooks = [path.name for path in venv.glob("lib/python*/site-packages/*.pth")]
    assert set(hooks) <= {"distutils-precedence.pth"}, "nothing may run at the interpreter's start"
