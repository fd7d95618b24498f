"""Models of a hub: a name becomes a commit, and the files of that commit that are needed come into the local cache."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from rediffuse.errors import ModelError
from rediffuse.writing import refusal

NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
INDEX = "model_index.json"
STORING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a disk says, hardly ever a network."""
INDICES = (INDEX, "config.json")  # what says of which kind a folder is: of a pipeline, of a bare network


def parse(name: str) -> tuple[str, str | None] | None:
    """Repository and revision of OWNER/NAME or OWNER/NAME@REVISION; None if the text has another form."""
    match = NAME.fullmatch(name)
    return None if match is None else (match["repository"], match["revision"])


def fetch(name: str, revision: str | None, choose: Callable[[Sequence[str]], list[str]]) -> tuple[Path, str]:
    """Folder and commit hash of a hub model.

    A commit that the cache holds is taken from there; anything else is asked of the hub. Without a connection the cache's commit of that
    branch is taken, with a warning that names it.

    Args:
        name: OWNER/NAME, or OWNER/NAME@REVISION.
        revision: commit, tag or branch; comes before the one in `name`.
        choose: which of the repository's files are needed. Nothing else is downloaded.
    Raises:
        ModelError: no such model, no access, or neither a connection nor a copy in the cache.
    """
    parsed = parse(name)
    if parsed is None:
        raise ModelError(f"a hub model is named OWNER/NAME or OWNER/NAME@REVISION, got {name!r}")
    repository, given = parsed
    wanted = revision or given or "main"
    if COMMIT.fullmatch(wanted) and (cached := _cached(repository, wanted, choose)):
        return cached
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    unreachable = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")  # of the client that is installed
    try:
        info = HfApi().model_info(repository, revision=wanted)
        files = choose([sibling.rfilename for sibling in info.siblings or ()])
        folder = Path(snapshot_download(repository, revision=wanted, allow_patterns=files))  # asked by branch, the cache remembers it
        return folder, folder.name
    except HFValidationError as error:
        raise ModelError(f"there is no folder or file {name!r}, and the hub has no such names: {error}") from error
    except GatedRepoError as error:
        raise ModelError(
            f"the hub model {repository} asks you to accept its terms: do that on its page, then run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"the hub model {repository} has no revision {wanted!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no hub model {repository!r} that you may read; check the name, or run `hf auth login`") from error
    except (unreachable, OSError) as error:
        stored = isinstance(error, OSError) and error.errno in STORING
        why = refusal(error) if stored else next(iter(str(error).strip().splitlines()), repr(error))
        if cached := _cached(repository, wanted, choose):
            what = "nothing can be downloaded" if stored else "the hub cannot be reached"
            warnings.warn(
                f"{what} ({why}), so {repository} is taken from the local cache: commit {cached[1]}, the last that is known of {wanted}",
                stacklevel=2,
            )
            return cached
        if stored:
            raise ModelError(
                f"the hub model {repository} cannot be stored in the local cache: {why}. Make room there, or set HF_HOME to another place"
            ) from error
        raise ModelError(
            f"the hub model {repository} at {wanted} is not in the local cache and the hub cannot be reached ({why}); connect once to "
            "download it, or give a folder"
        ) from error


def _cached(repository: str, revision: str, choose: Callable[[Sequence[str]], list[str]]) -> tuple[Path, str] | None:
    """The copy in the cache, if it is there whole."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, revision=revision) for name in INDICES)
    index = next((file for file in found if isinstance(file, str)), None)
    if index is None:
        return None
    folder = Path(index).parent
    try:
        choose([file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()])
    except ModelError:  # an interrupted download
        return None
    return folder, folder.name
