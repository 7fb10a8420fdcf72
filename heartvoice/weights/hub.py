"""Lists and fetches published files, from the hub through huggingface_hub or from plain URLs.

Files are fetched by the library's `http_get` and not by its `hf_hub_download`: the latter (of 2.4.0) gives every
process a separate partial file, so that an interrupted download starts from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from heartvoice.errors import CheckpointError, ModelUnavailableError
from heartvoice.file_errors import naming
from heartvoice.weights.catalogue import WeightSet
from heartvoice.weights.lock import LockedSet, WeightFile

LISTING_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Listing:
    """The files published now."""

    entry: LockedSet
    licence: str | None
    """Licence of the model card, in the hub's spelling (`gpl-3.0`)."""


@dataclass(frozen=True)
class Publisher:
    """The source of the weight sets."""

    endpoint: str | None = None
    """A mirror of the hub; None is HF_ENDPOINT, else the hub. Plain URLs have no mirror."""

    def listing(self, weights: WeightSet, revision: str | None) -> Listing:
        """List the files of a set with their published facts; fetch none.

        Args:
            weights: the set.
            revision: the commit; None is the newest.

        Raises:
            CheckpointError: the revision or a file is missing, or a file's size is not stated.
            ModelUnavailableError: the publisher cannot be reached, or refuses.
        """
        with _reaching(weights.title):
            return self._repository(weights, revision) if weights.on_hub else _plain(weights)

    def _repository(self, weights: WeightSet, revision: str | None) -> Listing:
        api = HfApi(endpoint=self.endpoint)
        try:
            info = api.model_info(weights.origin, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT_S)
        except RevisionNotFoundError as error:
            raise CheckpointError(f"{weights.title}: expected revision {revision}, which is not there") from error
        except (ValueError, TypeError, LookupError) as error:
            raise ModelUnavailableError(
                f"{weights.title}: {api.endpoint} does not answer as a hub: {error!r}"
            ) from error
        if info.sha is None or (revision is not None and info.sha != revision):
            raise CheckpointError(f"{weights.title}: expected revision {revision or 'of any name'}, got {info.sha}")
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        names = weights.chosen(siblings)
        if absent := weights.absent(names):
            raise CheckpointError(f"{weights.title}: revision {info.sha}: no file {', '.join(absent)}")
        files = {weights.path(name): _stated(weights, siblings[name]) for name in names}
        licence = next((tag[8:] for tag in info.tags or [] if tag.startswith("license:")), None)
        return Listing(LockedSet(weights.origin, info.sha, files), licence)

    def fetch(
        self, weights: WeightSet, revision: str | None, file: WeightFile, to: Path, advance: Callable[[int], None]
    ) -> None:
        """Fetch a file, or the missing rest of it.

        Args:
            weights: its set.
            revision: its commit.
            file: what to fetch.
            to: the partial file of an earlier attempt; it keeps the bytes of this attempt even on failure.
            advance: called with the number of new bytes; the first call counts the bytes of earlier attempts.

        Raises:
            CheckpointError: the publisher no longer has the file.
            ModelUnavailableError: the publisher cannot be reached, refuses, or sends too few or too many bytes.
        """
        if weights.on_hub:
            url = hf_hub_url(weights.origin, file.source, revision=revision, endpoint=self.endpoint)
            headers = build_hf_headers()
        else:
            url, headers = weights.origin + file.source, build_hf_headers(token=False)
        with _reaching(f"{weights.title}: {file.source}"), naming(to), to.open("ab") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            start = stream.tell()
            if start == file.size:
                advance(file.size)
                return
            # A compressed answer cannot be resumed.
            http_get(
                url, stream, resume_size=start, headers=headers | {"Accept-Encoding": "identity"},
                expected_size=file.size, displayed_filename=file.source,
                tqdm_class=cast(Any, partial(_Bar, advance)),
            )  # fmt: skip


def _stated(weights: WeightSet, sibling: RepoSibling) -> WeightFile:
    lfs = sibling.lfs
    size = sibling.size if lfs is None else lfs.size
    if size is None:
        raise CheckpointError(f"{weights.title}: {sibling.rfilename}: its size is not stated")
    if lfs is None:
        return WeightFile(sibling.rfilename, size, git_blob=sibling.blob_id)
    return WeightFile(sibling.rfilename, size, sha256=lfs.sha256)


def _plain(weights: WeightSet) -> Listing:
    files: dict[str, WeightFile] = {}
    for name in weights.files:
        metadata = get_hf_file_metadata(weights.origin + name, token=False)
        if metadata.size is None:
            raise CheckpointError(f"{weights.title}: {name}: its size is not stated")
        files[weights.path(name)] = WeightFile(name, metadata.size)
    return Listing(LockedSet(weights.origin, None, files), None)


@contextmanager
def _reaching(what: str) -> Iterator[None]:
    """Convert errors of the transfer to one sentence with a remedy."""
    try:
        yield
    except GatedRepoError as error:
        raise ModelUnavailableError(
            f"{what}: asks for its terms to be accepted: do so on its page, then set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailableError(f"{what}: not there, or private (then set HF_TOKEN)") from error
    except RemoteEntryNotFoundError as error:
        raise CheckpointError(f"{what}: is not there (any more)") from error
    except OfflineModeIsEnabled as error:
        raise ModelUnavailableError(f"{what}: HF_HUB_OFFLINE forbids to fetch it") from error
    except HfHubHTTPError as error:
        raise ModelUnavailableError(f"{what}: refused with HTTP status {error.response.status_code}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ModelUnavailableError(
            f"{what}: cannot be reached ({reason}); what has come is kept: try again, or name a mirror with --mirror"
        ) from error
    except OSError as error:
        if error.errno is not None:  # an error of this machine, such as a full disk
            raise
        reason = str(error).splitlines()[0]
        raise ModelUnavailableError(f"{what}: {reason} What has come is kept: try again") from error


class _Bar:
    """The part of tqdm's interface that `http_get` uses."""

    def __init__(self, advance: Callable[[int], None], *, initial: int = 0, **_: Any) -> None:
        self.update = advance
        advance(initial)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
