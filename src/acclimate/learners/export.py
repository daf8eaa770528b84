"""The vectors of everyone an encoder knows, written as a table: by pieces, whatever their number."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from acclimate.artifacts import Encoder
from acclimate.storage import replacing_folder

FILE = "vectors.parquet"


def write_vectors(encoder: Encoder, path: str | Path, *, overwrite: bool = False) -> int:
    """Write ``vectors.parquet``, with the columns ``id`` and ``vector``, to a folder; whole or not at all.

    Its metadata say which ``space`` the vectors are of, their ``entity``, and the last event they know (``cut``,
    microseconds UTC). Returns how many vectors there are.

    Raises:
        NotFittedError: the encoder knows nothing yet.
        OutputExistsError: the place is taken.
        OutputError: the place cannot be written.
    """
    told = {"space": encoder.space, "entity": encoder.entity, "cut": str(encoder.cut)}
    count = 0
    with replacing_folder(path, "vectors", overwrite=overwrite) as folder:
        writer = None
        for ids, vectors in encoder.batches():
            flat = pa.array(vectors.ravel(), pa.float32())
            vector = pa.FixedSizeListArray.from_arrays(flat, encoder.size)
            table = pa.table({"id": pa.array(ids.tolist()), "vector": vector}).replace_schema_metadata(told)
            if writer is None:
                writer = pq.ParquetWriter(folder / FILE, table.schema, compression="zstd")
            writer.write_table(table)
            count += len(ids)
        if writer is not None:
            writer.close()
    return count
