"""The graphs that an export makes: contract, builder and comparison of each. Importing it loads torch and onnx."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from heartvoice import contracts
from heartvoice.checkpoints import TensorSource
from heartvoice.contracts import ModelSpec
from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.flow_graph import build_heartcodec_condition, build_heartcodec_flow
from heartvoice.export.graph import Graph, Precision
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.parity import Comparison
from heartvoice.export.parity_codec import compare_condition, compare_decoder, compare_flow
from heartvoice.export.parity_lm import compare_heartmula
from heartvoice.presets import Preset

