"""The targets' names, without importing what they drive: atheris has to see those imports."""

NAMES = ("sound", "request", "reply", "safetensors", "checkpoint_index", "pickle", "prompt", "live_state")
