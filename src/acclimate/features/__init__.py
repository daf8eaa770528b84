"""Columns to design matrices: one encoding for learners, server and replay."""

from acclimate.features.cells import columns_of_vector
from acclimate.features.codes import codes_of, flat, has_id, id_type, ids_as, ids_as_arrow, positions
from acclimate.features.encode import design, encode, names_of
from acclimate.features.fields import FieldRows, Layout
from acclimate.features.index import INTERCEPT, FeatureIndex, Settled
from acclimate.features.keys import combined, key_column, shown

__all__ = [
    "INTERCEPT",
    "FeatureIndex",
    "FieldRows",
    "Layout",
    "Settled",
    "codes_of",
    "columns_of_vector",
    "combined",
    "design",
    "encode",
    "flat",
    "has_id",
    "id_type",
    "ids_as",
    "ids_as_arrow",
    "key_column",
    "names_of",
    "positions",
    "shown",
]
