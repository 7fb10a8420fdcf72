"""Every config by Triton's own schema; nothing of the embedded server in what a container loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from heartvoice.export import configs

ModelConfig = Any  # generated classes have no types
COMMITTED = sorted(configs.COMMITTED.glob("*/config.pbtxt")) + sorted(configs.COMMITTED.glob("*/configs/*.pbtxt"))
EMBEDDED_ONLY = ("join_requests", "EXECUTION_ENV_PATH", "intra_op_thread_count")
"""Parameters that our own onnxruntime backend or the wheel's stubs read."""


def parse(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def is_default(path: Path) -> bool:
    return path.name == "config.pbtxt"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.relative_to(configs.COMMITTED).as_posix())
def test_committed_config_parses_and_fits_its_backend(path: Path) -> None:
    config = parse(path)
    assert config.name == path.relative_to(configs.COMMITTED).parts[0]
    assert config.backend in ("python", "onnxruntime", "tensorrt")
    assert not config.platform
    kinds = {group.kind for group in config.instance_group}
    assert len(config.instance_group) == 1, "of its own accord Triton starts one for each GPU, or two on CPUs"
    if is_default(path):
        assert_fit_for_a_container(config)
    if path.stem == "tensorrt":
        assert config.backend == "tensorrt"
        assert kinds == {model_config_pb2.ModelInstanceGroup.KIND_GPU}
    if path.stem in ("cpu", "cpu_bf16"):
        assert kinds == {model_config_pb2.ModelInstanceGroup.KIND_CPU}


def assert_fit_for_a_container(config: ModelConfig) -> None:
    group = config.instance_group[0]
    assert config.backend in ("python", "onnxruntime")
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator, "OpenVINO is not in the container"
    assert not set(EMBEDDED_ONLY) & set(config.parameters)
    assert group.kind in (model_config_pb2.ModelInstanceGroup.KIND_AUTO, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert not group.gpus
    for tensor in (*config.input, *config.output):
        assert tensor.data_type != model_config_pb2.TYPE_INVALID
        assert tensor.dims
    for output in config.output:
        assert output.dims
    native = config.backend == "onnxruntime"
    assert config.default_model_filename == ("model.onnx" if native else "")
