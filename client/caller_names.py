"""Names recordings in errors as the caller named them: by argument or option, and by file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TypeVar

from heartvoice.client.recordings import RECORDING_NAMES, VOICE_NAMES, Recording
from heartvoice.client.requests import CoverRequest, JobRequest
from heartvoice.contracts.tensors import VOICE_ID
from heartvoice.errors import InvalidRequestError

M = TypeVar("M")
Names = Mapping[str, str]
"""What the caller calls an input, by the input's name in the contract."""


def input_names(recording: Recording | None = None, voice: Recording | None = None) -> Names:
    """Return the names of these recordings' inputs."""
    given = ((recording, RECORDING_NAMES), (voice, VOICE_NAMES))
    return {name: one.name for one, names in given if isinstance(one, Recording) and one.name for name in names}


def job_names(request: JobRequest) -> Names:
    """Return the names of a job's inputs."""
    voice = request.voice if isinstance(request.voice, Recording) else None
    names = input_names(request.recording if isinstance(request, CoverRequest) else None, voice)
    return {**names, VOICE_ID.name: "voice"}


@contextmanager
def caller_names(names: Names) -> Iterator[None]:
    """Let errors about these inputs begin with the caller's name in place of the contract's."""
    try:
        yield
    except InvalidRequestError as error:
        name, colon, rest = str(error).partition(": ")
        if not colon or name not in names:
            raise
        raise InvalidRequestError(f"{names[name]}: {rest}") from error


def named_stream(stream: Generator[M, None, None], names: Names) -> Generator[M, None, None]:
    """Yield what `stream` yields; see `caller_names`."""
    with caller_names(names):
        yield from stream


async def named_async_stream(stream: AsyncGenerator[M, None], names: Names) -> AsyncGenerator[M, None]:
    """Yield what `stream` yields; see `caller_names`."""
    with caller_names(names):
        async with aclosing(stream) as messages:
            async for message in messages:
                yield message
