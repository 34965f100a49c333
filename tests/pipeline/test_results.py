"""``--output-dir``: a copy of the finished run, and nothing of anybody else's is touched."""

import pytest

from barcast.core.errors import UsageError
from barcast.core.runs import RunFolder
from barcast.pipeline.results import check_output_dir, copy_results


@pytest.fixture
def finished(tmp_path):
    run = RunFolder(tmp_path / "runs" / "lstm-1")
    for name in (
        "run.json",
        "weights.safetensors",
        "live/2024.parquet",
        "writer.lock",
        "checkpoint.safetensors",
    ):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(name)
    return run


def test_results_are_copied_and_copied_again(finished, tmp_path):
    place = tmp_path / "out" / "universal"
    for text in ("old", "new"):
        finished.weights.write_text(text)
        copy_results(finished, place)
        found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
        assert found == {"run.json", "weights.safetensors", "live/2024.parquet"}
        assert (place / "weights.safetensors").read_text() == text


def test_a_place_with_other_things_is_refused(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UsageError, match="--output-dir"):
            check_output_dir(place)
        with pytest.raises(UsageError):
            copy_results(finished, place)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
