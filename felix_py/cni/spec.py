"""Words of the CNI specification that everybody here uses: versions, commands, codes of errors."""

import re
from enum import IntEnum, StrEnum

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Spec versions served, oldest first. Debian's containerd 1.6 refuses results of 1.1.0, so all four are needed."""

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""Container IDs and network names, as the spec has them."""


class Code(IntEnum):
    """Error codes: those of the spec below 100, ours from 100 on."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIGURATION = 7
    INVALID_NAMESPACE = 8  # of the reference implementation (pkg/types), not of the spec
    TRY_AGAIN_LATER = 11
    CANNOT_ADD = 50
    LIMITED = 51
    ALREADY_ATTACHED = 100
    INTERFACE_EXISTS = 101
    KERNEL_REFUSED = 102
    ATTACHMENT_DIFFERS = 103


class CniError(Exception):
    """An answer to the runtime that is not what it asked for."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Command(StrEnum):
    """What is asked for (CNI_COMMAND)."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"
