"""The qlib side of two benchmarks; runs in qlib's own environment and knows nothing of barcast.

    PYTHON_WITH_QLIB qlib_worker.py features FOLDER FIELDS.json   # timed inside: expressions, imports done
    PYTHON_WITH_QLIB qlib_worker.py factors FOLDER FIELDS.json    # timed from outside: the whole process

FOLDER is a data folder in qlib's format. With --cache the factors use qlib's own caches on disk, which need a
Redis server on the usual port. Prints one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("features", "factors"))
    parser.add_argument("folder")
    parser.add_argument("fields")
    parser.add_argument("--cache", choices=("none", "expression", "dataset"), default="none")
    parser.add_argument("--save", help="write the values here (.npy), to be compared")
    given = parser.parse_args()

    import qlib
    from qlib.data import D
    from qlib.data.cache import H

    uses = {
        "expression_cache": "DiskExpressionCache" if given.cache != "none" else None,
        "dataset_cache": "DiskDatasetCache" if given.cache == "dataset" else None,
    }
    qlib.init(provider_uri=given.folder, region="cn", kernels=1, logging_level=40, **uses)
    fields = json.loads(Path(given.fields).read_text())
    names = D.list_instruments(D.instruments("all"), as_list=True)
    if given.task == "features":
        D.features(names[:3], fields, disk_cache=0)  # what is imported on first use is imported now
        H.clear()
    start, start_cpu = time.perf_counter(), time.process_time()
    frame = D.features(D.instruments("all"), fields, disk_cache=int(given.cache == "dataset"))
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    if given.save:
        import numpy as np

        np.save(given.save, frame.sort_index().to_numpy())
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "rows": len(frame),
                "columns": frame.shape[1],
                "version": qlib.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
