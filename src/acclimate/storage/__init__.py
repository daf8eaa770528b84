"""Results on disk that prove themselves: each is listed file by file, switched to at once, and never half there.

Models are folders of immutable generations behind one manifest, and rows of many entities go on from one to the
next; reports and projects are folders that take their
name when they are whole. Never pickle.
"""

from acclimate.storage.artifact import (
    Stored,
    Unwritten,
    arrays_in,
    only_writer,
    read_artifact,
    read_kind,
    read_segments,
    unpacking,
    write_artifact,
)
from acclimate.storage.below import Below, Columns, InSegments
from acclimate.storage.manifest import FORMAT, verify_file
from acclimate.storage.places import check_free, replacing_folder
from acclimate.storage.segments import Rows, Segment, keys_of, texts_of, visible, write_segment

__all__ = [
    "FORMAT",
    "Below",
    "Columns",
    "InSegments",
    "Rows",
    "Segment",
    "Stored",
    "Unwritten",
    "arrays_in",
    "check_free",
    "keys_of",
    "only_writer",
    "read_artifact",
    "read_kind",
    "read_segments",
    "replacing_folder",
    "texts_of",
    "unpacking",
    "verify_file",
    "visible",
    "write_artifact",
    "write_segment",
]
