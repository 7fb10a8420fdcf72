#!/usr/bin/env bash
# Typer's exceptions are not those of the installed click.
#
# Expected: typer.BadParameter is a click.ClickException, as in all versions that depended on click; code that wraps a Typer
# app catches click's classes.
# Seen with typer 0.29.2: it carries its own copy of click, so such a handler catches nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check typer==0.29.2 click==8.5.1
cd "$folder"
venv/bin/python - <<'PY'
import sys

import click
import typer

app = typer.Typer()


@app.command()
def main(number: int) -> None:
    """One argument that must be a number."""


print("typer", typer.__version__)
try:
    app(["no number"], standalone_mode=False)
except click.ClickException:
    caught = True
except Exception as error:
    caught = False
    print("not a click.ClickException:", type(error).__module__, type(error).__name__)
print("typer.BadParameter is a click.ClickException:", issubclass(typer.BadParameter, click.ClickException))
sys.exit(caught or issubclass(typer.BadParameter, click.ClickException))
PY
