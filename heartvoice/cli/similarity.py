"""The command `heartvoice similarity`: compares the voices of two recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from heartvoice.cli.option_names import by_option
from heartvoice.cli.options import (
    JsonOption,
    ReferenceCheckOption,
    ServerChoice,
    one_standard_input,
    read_recording,
    with_options,
)
from heartvoice.cli.output import print_lines
from heartvoice.cli.own_server import Job
from heartvoice.client.caller_names import input_names
from heartvoice.client.inputs import embed_inputs
from heartvoice.client.messages import Embedding
from heartvoice.client.recordings import Recording
from heartvoice.contracts.constants import DEFAULT_REFERENCE_CHECK
from heartvoice.errors import InvalidRequestError

if TYPE_CHECKING:
    from heartvoice.client.sync import Client

_RANDOM = "the encoder's weights are RANDOM: this says nothing; see `heartvoice export --help`"
_NOT_THERE = "the server has no weights of it but random ones"


@with_options()
def similarity(
    *,
    first: Annotated[
        str, typer.Argument(metavar="A", help="WAV, AIFF, FLAC, OGG or MP3 file; - reads standard input.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one, likewise.")],
    as_json: JsonOption = False,
    reference_check: ReferenceCheckOption = None,
    server: ServerChoice,
) -> None:
    """Compare the voices of two recordings, of speech or of singing without instruments.

    For example: heartvoice similarity reference.wav stems/vocals.wav

    Prints the cosine between them, from -1 to 1, by each judge that the server has, what it means, and what they decide
    together.
    """
    one_standard_input(A=first, B=second)
    recordings = [read_recording(name, field=field) for field, name in (("A", first), ("B", second))]
    mode = reference_check or DEFAULT_REFERENCE_CHECK
    jobs = [Job("speaker_encoder", embed_inputs(each, mode), input_names(each)) for each in recordings]
    with server.client("nothing was compared", *jobs) as client:
        one, other = (_embed(client, field, recording, mode) for field, recording in zip("AB", recordings, strict=True))
    made = _result(one, other)
    if as_json:
        print(json.dumps(made))
    lines = [f"cosine {judge['cosine']:.3f} ({engine}): {judge['meaning']}" for engine, judge in made["judges"].items()]
    lines += [made["decision"], *(f"warning: {by_option(warning)}" for warning in made["warnings"])]
    print_lines(lines, Console(stderr=as_json))


def _embed(client: Client, field: str, recording: Recording, reference_check: str) -> Embedding:
    try:
        return client.embed(recording, reference_check=reference_check)
    except InvalidRequestError as error:
        if str(error).startswith(f"{recording.name}: "):
            raise
        raise InvalidRequestError(f"{field}: {error}") from None


def _result(one: Embedding, other: Embedding) -> dict[str, Any]:
    from heartvoice.evaluation.similarity import DEFAULT_JUDGES, decide, meaning, verdict

    seconds = min(one.seconds, other.seconds)
    random_weights = one.random_weights or other.random_weights
    judges: dict[str, dict[str, Any]] = {}
    for engine, cosine in one.cosines(other).items():
        is_random = random_weights and engine == one.encoder
        said = _RANDOM if is_random else meaning(engine, cosine, seconds)
        decided = "undecided" if is_random else verdict(engine, cosine, seconds)
        judges[engine] = {"cosine": cosine, "meaning": said, "verdict": decided, "random_weights": is_random}
    asked = {engine: judge["verdict"] for engine, judge in judges.items() if not judge["random_weights"]}
    decision = decide(asked, dict.fromkeys(DEFAULT_JUDGES, _NOT_THERE))
    return {
        "cosine": judges[one.encoder]["cosine"],
        "meaning": judges[one.encoder]["meaning"],
        "encoder": one.encoder,
        "judges": judges,
        "verdict": decision.verdict,
        "decision": decision.text,
        "seconds": [one.seconds, other.seconds],
        "random_weights": random_weights,
        "warnings": [f"{field}: {warning}" for field, made in (("A", one), ("B", other)) for warning in made.warnings],
        "reports": [_without_vectors(made.raw) for made in (one, other)],
    }


def _without_vectors(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "vectors"}
