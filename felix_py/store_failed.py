"""What is said where addresses could not be written down."""

import errno

from felix_py.claims import Conflict
from felix_py.datastore.api import Unavailable


class StoreFailed(Exception):  # noqa: N818 - named for what happened: nothing was changed
    """The change could not be made durable; what was written before still holds."""


def failed(error: OSError | Conflict) -> StoreFailed:
    """Say in one sentence what failed, and what to do."""
    if isinstance(error, Conflict):
        return StoreFailed(f"{error}; nothing was changed")
    if isinstance(error, Unavailable):
        return StoreFailed(f"{error.filename} cannot be used: {error.strerror}; {error.remedy}; nothing was changed")
    remedy = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
    return StoreFailed(f"{error.filename} cannot be written: {error.strerror}; {remedy}; nothing was changed")
