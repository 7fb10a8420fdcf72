"""The contract: names once, ranges enforced, configs that Triton's own schema accepts, README in step."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from heartvoice.contracts import triton_config
from heartvoice.contracts.constants import CONTRACT
from heartvoice.contracts.graphs import heartmula_step
from heartvoice.contracts.models import MODELS, SVC
from heartvoice.contracts.types import ModelSpec, Setting
from heartvoice.errors import InvalidRequestError, from_wire
from heartvoice.runtime.repository import GRAPH

ROOT = Path(__file__).parents[3]
ALL_MODELS = [*MODELS.values(), heartmula_step(3), SVC]
SETTINGS = {setting.name: setting for model in MODELS.values() for setting in model.settings}


@pytest.mark.parametrize("model", ALL_MODELS, ids=lambda model: model.name)
def test_config_is_what_tritons_schema_accepts(model: ModelSpec) -> None:
    for variant in triton_config.variants(model):
        config = text_format.Parse(triton_config.to_config_text(model, variant), model_config_pb2.ModelConfig())
        assert config.name == model.name
        assert [tensor.name for tensor in config.input] == [spec.name for spec in model.all_inputs]
        assert [list(tensor.dims) for tensor in config.output] == [list(spec.dims) for spec in model.outputs]
        assert config.model_transaction_policy.decoupled is model.decoupled
        path = ROOT / "model_repository" / triton_config.config_path(model, variant)
        if model.name in MODELS:
            assert path.read_text() == triton_config.to_config_text(model, variant), f"{path}: run `make configs`"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_accept_their_ends_and_refuse_what_lies_beyond(setting: Setting) -> None:
    assert setting.check(setting.default) == setting.default
    wrong: list[object] = ["1", None]
    if setting.minimum is not None and setting.maximum is not None:
        assert setting.check(setting.minimum) == setting.minimum
        assert setting.check(setting.maximum) == setting.maximum
        wrong += [setting.minimum - 1, setting.maximum * 2, float("nan"), True]
    for value in wrong:
        with pytest.raises(InvalidRequestError, match=f"^{setting.name}: expected"):
            setting.check(value)


def test_errors_survive_the_wire() -> None:
    error = from_wire(InvalidRequestError("top_k: expected 1 to 1000, got 0").wire())
    assert type(error) is InvalidRequestError
    assert str(error) == "top_k: expected 1 to 1000, got 0"


def test_contracts_version_is_the_models_version() -> None:
    assert f"{CONTRACT}/model.onnx" == GRAPH
    assert {path.parent.name for path in (ROOT / "model_repository").glob("*/*/model.py")} == {CONTRACT}
