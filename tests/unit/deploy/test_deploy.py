"""What deploy/ has: clean by the linters of its formats, and in step with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from heartvoice.cli.main import LAZY_COMMANDS, app
from heartvoice.contracts.models import LOADED
from heartvoice.gateway.access_log import Metrics
from heartvoice.server.profiles import GB10
from heartvoice.server.server import STOP_PER_MODEL_S, STOP_S

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
RUNTIME = DOCKERFILE.partition(" AS runtime\n")[2]
"""The last stage: what is built by default."""
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")


def run(*command: object, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def test_dockerfile_is_clean_by_hadolint() -> None:
    assert run(tool("hadolint"), DEPLOY / "Dockerfile") == ""


def test_yaml_is_clean_by_yamllint() -> None:
    assert run(tool("yamllint"), "--strict", "-c", DEPLOY / ".yamllint.yaml", DEPLOY) == ""


@needs_promtool
def test_prometheus_takes_its_configuration() -> None:
    assert "11 rules found" in run(PROMTOOL, "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in run(PROMTOOL, "test", "rules", Path(__file__).with_name("rules_test.yaml"))


def test_gateways_metrics_of_dashboard_and_alerts_are_there() -> None:
    text = (DEPLOY / "grafana/dashboards/heartvoice.json").read_text() + (DEPLOY / "prometheus/rules.yaml").read_text()
    read = set(re.findall(r"heartvoice_gateway_\w+", text))
    families = list(Metrics().registry.collect())
    there = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert read
    assert read <= there


# ------------------------------------------------------------------------------------------------------------ compose


def arguments_of(service: str) -> tuple[str, list[str]]:
    command, *arguments = (re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(part)) for part in SERVICES[service]["command"])
    return command, arguments


def check_command(command: str, arguments: list[str]) -> dict[str, Any]:
    """The options as the command itself reads them; it is not run."""
    assert command in LAZY_COMMANDS
    found = typer.main.get_command(app).get_command(None, command)  # type: ignore[attr-defined]
    context = found.make_context(command, list(arguments))
    parameters: dict[str, Any] = context.params
    return parameters


@pytest.mark.parametrize("service", ["server", "gateway"])
def test_commands_and_health_checks_are_ones_that_exist(service: str) -> None:
    check_command(*arguments_of(service))
    program, command, *arguments = SERVICES[service]["healthcheck"]["test"][1:]
    assert program == "heartvoice"
    check_command(command, [re.sub(r"\$\{\w+:-(.*)\}", r"\1", part) for part in arguments])


def test_image_starts_a_server_for_the_profile() -> None:
    command = re.search(r"^CMD (\[.*\])$", RUNTIME, re.MULTILINE)
    health = re.search(r"^    CMD (\[.*\])$", RUNTIME, re.MULTILINE)
    assert command
    assert health
    name, *arguments = json.loads(command[1])
    parameters = check_command(name, arguments)
    assert parameters["profile"] == GB10.name
    assert parameters["server"] == "/opt/tritonserver/bin/tritonserver"
    assert json.loads(health[1]) == SERVICES["server"]["healthcheck"]["test"][1:]


def test_server_has_the_shared_memory_of_its_profile() -> None:
    _, arguments = arguments_of("server")
    assert arguments[arguments.index("--profile") + 1] == GB10.name
    match = re.fullmatch(r"(\d+)gb", SERVICES["server"]["shm_size"])
    assert match
    assert int(match[1]) * 2**30 == GB10.shm_bytes


@pytest.mark.parametrize("service", ["server", "gateway"])
def test_containers_are_given_longer_to_stop_than_a_song_takes(service: str) -> None:
    _, arguments = arguments_of(service)
    drain_s = float(arguments[arguments.index("--drain-s") + 1])
    grace = float(SERVICES[service]["stop_grace_period"].removesuffix("s"))
    assert grace > drain_s + STOP_S + STOP_PER_MODEL_S * len(LOADED)


def test_only_gateway_and_dashboard_can_be_reached() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert [port["target"] for port in published.pop("pod")] == [3000, 8443]
    assert not any(published.values())
    assert {service["network_mode"] for name, service in SERVICES.items() if name != "pod"} == {"service:pod"}
    assert "--address" not in SERVICES["server"]["command"]


def test_nothing_runs_as_root_or_may_become_it() -> None:
    assert len(re.findall(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)) == 2
    for name in ("server", "gateway"):
        assert SERVICES[name]["read_only"] is True
    for name, service in SERVICES.items():
        if name != "pod":
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert "privileged" not in service


def test_settings_of_compose_are_explained() -> None:
    named = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    assert given == named


# -------------------------------------------------------------------------------------------------------------- image


def copied() -> list[str]:
    """What the Dockerfile copies out of the repository."""
    found = re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    return [name for line in found for name in line.split()]


def test_base_is_the_official_image_with_cuda_13() -> None:
    version = re.search(r"^ARG TRITON_VERSION=(\d+)\.(\d+)$", DOCKERFILE, re.MULTILINE)
    assert version
    assert (int(version[1]), int(version[2])) >= (25, 8)
    assert "FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3 AS base" in DOCKERFILE


def test_build_context_holds_what_is_copied_and_no_weights() -> None:
    lines = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    assert lines[0] == "*"
    allowed = {line[1:].split("/")[0] for line in lines if line.startswith("!")}
    assert allowed == set(copied())
    for suffix in ("onnx", "data", "plan", "safetensors", "pt", "pth", "th", "bin"):
        assert f"**/*.{suffix}" in lines


def test_image_brings_no_second_server() -> None:
    assert "\nFROM " not in RUNTIME
    extras = re.search(r"\$\{wheel\}\[(.*?)\]", RUNTIME)
    assert extras
    assert {"gpu", "gateway", "trust"} <= set(extras[1].split(",")), "it signs what it makes, and knows its voices"
    assert not {"serve", "export"} & set(extras[1].split(","))
