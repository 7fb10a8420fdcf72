"""Building a plan through TensorRT's API: every call is held against the bindings of two versions."""

from __future__ import annotations

import ast
import inspect
import logging
from pathlib import Path

import pytest

from heartvoice.errors import EngineError, ExportError
from heartvoice.export import plan_builder
from heartvoice.export.layout import graph_models
from heartvoice.export.plan_builder import PlanOptions, build_plan, import_tensorrt
from heartvoice.export.plan_profiles import InputProfile, profile
from heartvoice.export.writer import GRAPH_FILE
from heartvoice.runtime import tensorrt_engine
from tests.fakes.tensorrt import API, STEPS, VERSIONS, fake_tensorrt, plan_head
from tests.support.graphs import TINY

SHAPES = profile(graph_models(TINY)["svc_flow"], TINY)


@pytest.fixture
def graph(exported: Path) -> Path:
    return exported / "svc_flow" / "1" / GRAPH_FILE


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def phase(self, name: str, n_steps: int) -> None:
        self.events.append((name, f"of {n_steps}"))

    def step(self, name: str, step: int) -> None:
        self.events.append((name, str(step)))

    def phase_done(self, name: str) -> None:
        self.events.append((name, "done"))


@pytest.mark.parametrize("version", VERSIONS)
def test_plans_are_strongly_typed_without_tf32_and_for_the_profile(graph: Path, tmp_path: Path, version: str) -> None:
    built = build_plan(fake_tensorrt(version), graph, SHAPES, PlanOptions(workspace_bytes=2**30))
    path = tmp_path / "plan"
    path.write_bytes(built.plan)
    head = plan_head(path)
    assert (head["version"], head["tf32"], head["workspace"]) == (version, False, 2**30)
    assert head["profile"] == {
        name: [list(entry.least), list(entry.usual), list(entry.most)] for name, entry in SHAPES.items()
    }
    assert built.timing_cache == f"timings of {version}".encode()


def test_tf32_is_a_choice(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(build_plan(fake_tensorrt(), graph, SHAPES, PlanOptions(tf32=True)).plan)
    assert plan_head(path)["tf32"]


def test_parser_refusal_names_every_node(graph: Path) -> None:
    with pytest.raises(ExportError, match=r"parser refuses it: node \d+ Softmax softmax\.Softmax_\d+: No importer"):
        build_plan(fake_tensorrt(refused=("Softmax",)), graph, SHAPES, PlanOptions())


def test_inputs_that_the_contract_does_not_have_are_refused(graph: Path) -> None:
    with pytest.raises(ExportError, match="the parsed network has inputs"):
        build_plan(fake_tensorrt(), graph, {"x": SHAPES["x"]}, PlanOptions())


def test_profile_that_tensorrt_refuses_is_an_error(graph: Path) -> None:
    wrong = SHAPES | {"t": InputProfile((4, 1), (2, 1), (1, 1))}
    with pytest.raises(ExportError, match="refuses the profile"):
        build_plan(fake_tensorrt(), graph, wrong, PlanOptions())


def test_timing_cache_of_another_version_is_ignored_with_a_warning(
    graph: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        built = build_plan(fake_tensorrt(), graph, SHAPES, PlanOptions(), timing_cache=b"timings of 9.0")
    assert "another GPU or version" in caplog.text
    assert built.timing_cache == f"timings of {VERSIONS[0]}".encode()


def test_progress_hears_phases_and_a_cancelled_build_ends_at_the_next_step(graph: Path) -> None:
    heard = Heard()
    build_plan(fake_tensorrt(), graph, SHAPES, PlanOptions(), progress=heard)
    steps = [str(step) for step in range(STEPS)]
    assert [event for name, event in heard.events if name == "Building Engine"] == [f"of {STEPS}", *steps, "done"]
    heard = Heard()
    with pytest.raises(ExportError, match="cancelled"):
        build_plan(
            fake_tensorrt(), graph, SHAPES, PlanOptions(), progress=heard, cancelled=lambda: len(heard.events) > 2
        )
    assert heard.events[-1][1] == "1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("module", [plan_builder, tensorrt_engine])
def test_every_name_of_tensorrt_that_the_code_uses_is_in_the_bindings(module: object, version: str) -> None:
    """The fake checks what the tests reach; this checks the text."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            inner = node.value
            if isinstance(inner.value, (ast.Name, ast.Attribute)) and ast.unparse(inner.value) in ("trt", "self._trt"):
                used.add((inner.attr, node.attr))
    assert used
    for kind, member in used:
        assert member in API[version][kind] or member == "__init__", f"{kind}.{member}"


def test_missing_tensorrt_says_where_to_get_it() -> None:
    with pytest.raises(EngineError, match=r"docs/how-to/gpu\.md"):
        import_tensorrt()


def test_fake_refuses_what_the_bindings_do_not_have() -> None:
    trt = fake_tensorrt(VERSIONS[-1])
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    with pytest.raises(AttributeError, match="platform_has_fast_fp16"):
        _ = builder.platform_has_fast_fp16  # gone in 11
    with pytest.raises(TypeError, match="incompatible arguments"):
        builder.create_network("strong")
    with pytest.raises(TypeError, match="No constructor"):
        trt.IBuilderConfig()
    assert not hasattr(trt.BuilderFlag, "FP16")
