"""The hash of what decides a graph covers its builders, and nothing that merely looks at repositories."""

from __future__ import annotations

from heartvoice.export.code_hash import code_files

FILES = set(code_files())


def test_code_that_decides_a_graph_is_covered() -> None:
    builders = {"decoder", "f0", "flow", "heartmula", "htdemucs", "llama", "sampling", "speaker", "style", "svc_flow"}
    assert {f"export/{name}_graph.py" for name in builders | {"vocoder"}} <= FILES
    assert {"export/graph_builder.py", "export/heartmula_ort.py", "export/quantize.py", "export/writer.py"} <= FILES
    assert {"export/parity.py", "models/load.py", "models/heartcodec/codec.py", "models/seed_vc/dit.py"} <= FILES
    assert {"checkpoints/random_init.py", "config/presets.py", "contracts/models.py", "keyed_random.py"} <= FILES


def test_code_that_decides_no_graph_is_left_out() -> None:
    looks_on = ("check", "configs", "repository", "atomic_repository", "lint", "emulate", "plan_export", "plan_builder")
    assert not {f"export/{name}.py" for name in looks_on} & FILES
    assert not {"contracts/validation.py", "contracts/adapters.py", "contracts/triton_config.py"} & FILES
    assert not [name for name in FILES if name.startswith(("runtime", "stages", "serving", "cli", "client"))]
