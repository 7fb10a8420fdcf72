"""`--serve`: a server of one command's own, started only for jobs that it would take."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from heartvoice.cli.terminal import escape_controls
from heartvoice.client.caller_names import Names, caller_names
from heartvoice.client.messages import Array
from heartvoice.contracts.constants import WATERMARK_KEY_VARIABLE


@dataclass(frozen=True)
class Job:
    """What a command asks one model for."""

    model: str
    inputs: Mapping[str, Array]
    """Checked tensors by name."""
    names: Names = field(default_factory=dict)
    """What errors call them."""


@contextmanager
def own_server(repository: Path, jobs: tuple[Job, ...]) -> Iterator[str]:
    """Run a server for the block and yield its endpoint.

    Args:
        repository: exported.
        jobs: what the block asks it for. One that its sizes or its files rule out starts no server, which takes
            seconds.

    Raises:
        InvalidRequestError: a job would be refused.
        ModelUnavailableError: packages are missing.
    """
    from heartvoice.cli.serve import check_installed
    from heartvoice.server.options import ServerOptions
    from heartvoice.server.server import EmbeddedServer, free_port

    check_installed()
    _refuse(repository, jobs)
    key = os.environ.get(WATERMARK_KEY_VARIABLE)  # who starts a server is its operator
    options = ServerOptions(repository, free_port(), free_port(), watermark_key=Path(key) if key else None)
    with EmbeddedServer(options) as server:
        typer.echo(f"started a server over {escape_controls(str(repository))}", err=True)
        yield server.url


def _refuse(root: Path, jobs: tuple[Job, ...]) -> None:
    """Refuse what the models of an exported repository would refuse before a network runs."""
    from heartvoice.runtime.repository import INDEX, Repository

    if not (root / INDEX).is_file():
        return  # the server says what is wrong with it
    from heartvoice.pipeline.admission import check_job

    repository = Repository(root)
    for job in jobs:
        with caller_names(job.names):
            check_job(job.model, job.inputs, repository)
