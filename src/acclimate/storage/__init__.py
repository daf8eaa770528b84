"""Results on disk that prove themselves: each is listed file by file, switched to at once, and never half there.

Models are folders of immutable generations behind one manifest; reports and projects are folders that take their
name when they are whole. Never pickle.
"""

from acclimate.storage.artifact import Stored, only_writer, read_artifact, read_kind, unpacking, write_artifact
from acclimate.storage.manifest import FORMAT, verify_file
from acclimate.storage.places import check_free, replacing_folder

__all__ = [
    "FORMAT",
    "Stored",
    "check_free",
    "only_writer",
    "read_artifact",
    "read_kind",
    "replacing_folder",
    "unpacking",
    "verify_file",
    "write_artifact",
]
