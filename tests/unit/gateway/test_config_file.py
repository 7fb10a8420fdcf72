"""The gateway's file of options: the same names, defaults and ranges as the command line, which wins over it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.gateway.config_file import read_config
from heartvoice.gateway.options import GatewayOptions, all_options, flag, make_options
from heartvoice.gateway.rate_limits import Limits
from tests.support.callers import heartvoice

EXAMPLE = Path(__file__).parents[3] / "deploy" / "gateway.toml"
OPTIONS = {option.name: option for option in all_options()}


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def options_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> GatewayOptions:
    """What the command would run."""
    found: list[GatewayOptions] = []

    async def run(options: GatewayOptions, ready: object) -> None:
        found.append(options)

    monkeypatch.setattr("heartvoice.gateway.server.run", run)
    monkeypatch.setattr("heartvoice.cli.gateway._log_to", lambda path: None)
    result = heartvoice("gateway", *arguments)
    assert result.exit_code == 0, result.stderr
    return found[0]


def test_every_field_is_an_option() -> None:
    names = {field.name for field in (*fields(GatewayOptions), *fields(Limits))} - {"limits"}
    assert set(OPTIONS) == names
    text = heartvoice("gateway", "--help").output
    assert all(flag(name) in text for name in OPTIONS)


def test_the_example_sets_every_option_but_two_and_keeps_the_defaults() -> None:
    values = read_config(EXAMPLE)
    assert set(OPTIONS) - set(values) == {"client_roots", "registry"}
    other = {"listen", "models", "access_log", "certificate", "private_key", "tokens"}
    assert {name: value for name, value in values.items() if value != OPTIONS[name].default}.keys() == other
    options = make_options(values)
    assert options.certificate == EXAMPLE.parent / "host.pem"  # relative to the file
    assert options.access_log == Path("/var/log/heartvoice/access.jsonl")
    assert options.models == ("song", "render", "cover", "demucs", "speaker_encoder")
    commented = set(re.findall(r"^# ([a-z-]+) = ", EXAMPLE.read_text(), re.MULTILINE))
    assert commented == {"client-roots", "registry"}


def test_the_file_sets_options_and_the_command_line_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(
        tmp_path,
        'listen = "127.0.0.1:1"\nmodels = ["song"]\nconcurrent = 3\ndrain-s = 5\ninsecure = true\ncall-s = 9.5\n'
        'tokens = "tokens.txt"\n',
    )
    options = options_of(monkeypatch, "--config", str(path))
    assert options == GatewayOptions(
        listen="127.0.0.1:1", models=("song",), drain_s=5.0, insecure=True, tokens=tmp_path / "tokens.txt",
        limits=Limits(concurrent=3, call_s=9.5),
    )  # fmt: skip
    # A value that the command line repeats wins, even where it is the default.
    options = options_of(
        monkeypatch, "--config", str(path), "--listen", "127.0.0.1:8010", "--concurrent", "8", "--models", "cover, song"
    )
    assert (options.listen, options.limits.concurrent, options.models) == ("127.0.0.1:8010", 8, ("cover", "song"))
    assert options.limits.call_s == 9.5
    assert options_of(monkeypatch) == GatewayOptions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric-port = 1", "metric-port: unknown key; did you mean metrics-port?"),
        ("drain_s = 1", "drain_s: unknown key; did you mean drain-s?"),
        ("[limits]\nconcurrent = 1", "limits: unknown key; expected one of listen, upstream, models, "),
        ("json = true", "json: unknown key; expected one of"),
        ("concurrent = 1.5", "concurrent: expected a whole number, got 1.5"),
        ("concurrent = true", "concurrent: expected a whole number, got True"),
        ('drain-s = "5"', "drain-s: expected a number, got '5'"),
        ("insecure = 1", "insecure: expected true or false, got 1"),
        ("listen = 8010", "listen: expected a text, got 8010"),
        ('models = "song"', "models: expected a list of texts, got 'song'"),
        ("models = [1]", "models: expected a list of texts, got [1]"),
        ('tokens = ""', "tokens: expected a file's name, got ''"),
        ("listen = ", "expected TOML: "),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidRequestError, match=re.escape(f"{path}: {message}")):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drain-s = -1", "drain-s: expected at least 0, got -1.0"),
        ("drain-s = nan", "drain-s: expected at least 0, got nan"),
        ("connections = 0", "connections: expected at least 1, got 0"),
        ("metrics-port = 65536", "metrics-port: expected 0 to 65535, got 65536"),
        ("requests-per-s = 0", "requests-per-s: expected more than 0, got 0.0"),
        ("bytes-per-minute = 1000", "bytes-per-minute: expected at least max_message_bytes"),
        ('listen = "0.0.0.0:1"', "listen: 0.0.0.0:1 is not on loopback; expected --certificate and --private-key"),
        ('listen = "nowhere"', "listen: expected host:port, got 'nowhere'"),
        ('models = ["nothing"]', "models: expected some of song, "),
        ('certificate = "host.pem"', "certificate, private-key: expected both or neither, got one"),
    ],
)
def test_values_out_of_range_are_refused_with_the_files_name(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    result = heartvoice("gateway", "--config", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path}: {message}"), result.stderr


def test_a_wrong_value_of_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "concurrent = 3\nlisten = '127.0.0.1:1'")
    result = heartvoice("gateway", "--config", str(path), "--listen", "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --listen: expected host:port, got 'nowhere'")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = heartvoice("gateway", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert f"--config: cannot read {tmp_path / 'none.toml'}: No such file" in result.stderr
