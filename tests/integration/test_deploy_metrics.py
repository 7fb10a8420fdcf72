"""Every metric that dashboard and alerts read exists on the real server."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from heartvoice.client import Client
from heartvoice.server.server import EmbeddedServer

DEPLOY = Path(__file__).parents[2] / "deploy"
GATEWAY, PROMETHEUS = "heartvoice_gateway_", {"up"}
WORDS = {
    "sum", "rate", "increase", "by", "and", "histogram_quantile", "le", "model", "outcome", "reason", "caller", "code",
    "direction",
}  # fmt: skip
"""Functions, operators and labels of the expressions."""


def expressions() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "heartvoice.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """Names in an expression, without selectors, ranges and words of the language."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", bare)) - WORDS


@pytest.fixture(scope="module")
def scraped(server: EmbeddedServer) -> dict[str, set[str]]:
    """Names of the server's samples, with their labels, after a song."""
    with Client(server.url) as client:
        client.song(lyrics="la", duration_s=1.0, codec_steps=1)
    with urllib.request.urlopen(server.metrics_url, timeout=60) as page:
        text = page.read().decode()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def test_names_are_found_in_expressions() -> None:
    assert metrics_of('60 * sum by (model) (rate(a_total{x="y"}[5m])) > 0 and b == 0') == {"a_total", "b"}


@pytest.mark.parametrize("expression", expressions())
def test_metrics_of_dashboard_and_alerts_are_there(expression: str, scraped: dict[str, set[str]]) -> None:
    names = {name for name in metrics_of(expression) if not name.startswith(GATEWAY)} - PROMETHEUS
    assert names <= set(scraped)
    labels = set(re.findall(r"(\w+)=~?\"", expression))
    labels |= {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    for name in names:
        assert labels <= scraped[name], f"{name} has the labels {sorted(scraped[name])}"
