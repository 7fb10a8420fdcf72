"""Fields in messages by the options that they came from."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from heartvoice.cli.main import LAZY_COMMANDS, app
from heartvoice.cli.option_names import by_option, errors_by_option
from heartvoice.contracts.models import COVER, RENDER, SONG
from heartvoice.errors import InvalidRequestError


def found(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.get_command(None, name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("svc_steps: expected 1 to 100, got 0", "--svc-steps: expected 1 to 100, got 0"),
        ("min_duration_s: expected at most duration_s = 3, got 4",
         "--min-duration: expected at most --duration = 3, got 4"),
        ("recording, voice_consent: expected one", "recording, --consent: expected one"),
        ("pitch: too high; lower pitch_shift by 2", "pitch: too high; lower --pitch-shift by 2"),
        ("/etc/gateway.toml: drain_s: unknown key", "/etc/gateway.toml: drain_s: unknown key"),
        ("reference_check can be off", "--reference-check can be off"),
        ("the converter is live: it hears less", "the converter is live: it hears less"),
        ("voice: cannot read '/home/me/svc_steps/pitch_shift.wav'",
         "voice: cannot read '/home/me/svc_steps/pitch_shift.wav'"),
        ("voice: cannot read 'my pitch_shift take'", "voice: cannot read 'my pitch_shift take'"),
        ("voice: lacks pitch_shift.wav, top_k/", "voice: lacks pitch_shift.wav, top_k/"),
    ],
)  # fmt: skip
def test_fields_become_options_and_file_names_stay(text: str, shown: str) -> None:
    assert by_option(text) == shown


@pytest.mark.parametrize("command", ["song", "cover"])
def test_no_command_names_a_field_whose_option_it_has(command: str) -> None:
    made = found(command)
    options = {option for parameter in made.params for option in parameter.opts}
    fields = {tensor.name for model in (SONG, COVER, RENDER) for tensor in model.all_inputs}
    for field in fields:

        def fail(text: str = f"{field}: wrong", **_: object) -> None:
            raise InvalidRequestError(text)

        made.callback = fail
        errors_by_option(made)
        with pytest.raises(InvalidRequestError) as raised:
            made.callback()
        shown = str(raised.value).partition(": ")[0]
        wanted = f"--{field.replace('_', '-')}"
        assert shown == (wanted if wanted in options else shown)
        assert shown in (field, *options)


def test_all_commands_and_those_below_them_name_their_options() -> None:
    for name in LAZY_COMMANDS:
        made = found(name)
        for command in (made, *getattr(made, "commands", {}).values()):
            assert command.callback is None or hasattr(command.callback, "__wrapped__"), command.name
