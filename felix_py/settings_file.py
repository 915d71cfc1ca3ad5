"""Settings as they stand in felix.yaml and in the environment of this process."""

import os
import socket
from pathlib import Path

import yaml

from felix_py import config
from felix_py.config import Config
from felix_py.model import Fault, Invalid

DEFAULT = Path("/etc/felix/felix.yaml")


def read(path: Path | None) -> Config:
    """Read the settings; the default file may be missing, one that was asked for may not.

    Raises:
        Invalid: with every fault of file and environment.
    """
    where = path or DEFAULT
    try:
        document = yaml.safe_load(where.read_text())
    except FileNotFoundError:
        if path is not None:
            raise Invalid(Fault(str(where), "", "does not exist; give the path of a felix.yaml")) from None
        document = None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(Fault(str(where), "", f"cannot be read: {' '.join(str(error).split())}")) from error
    return config.load(document, os.environ, where=str(where), host_name=socket.gethostname().split(".")[0])
