"""Options of training scripts that people copy: nothing is refused for being pointless."""

import pytest

from barcast.cli.copied import translate


@pytest.mark.parametrize(
    ("given", "kept", "num_notices"),
    [
        ("train --model-type lstm --num-workers 8 --pin-memory --epochs 3", "train --model-type lstm --epochs 3", 2),
        ("train lstm --amp --device cuda", "train lstm --amp auto --device cuda", 0),
        ("train lstm --amp", "train lstm --amp auto", 0),
        ("train lstm --amp bf16", "train lstm --amp bf16", 0),
        ("train lstm --useGPU True --GPU_ID 0 --lr 0.1", "train lstm --lr 0.1", 2),
        ("train --useGPU --num-workers=4 --lr 0.1", "train --lr 0.1", 2),
        ("train lstm --useGPU", "train lstm", 1),
        ("plan train lstm --num-workers 2", "plan train lstm", 1),
        ("data import --num-workers 2", "data import --num-workers 2", 0),
        ("train --model lstm --layers 2 --look_back_window 20 --batch_first True",
         "train --model-type lstm --num-layers 2 --look-back-window 20", 1),
        ("train --hidden_size=64 --symbols BRK_B", "train --hidden-size=64 --symbols BRK_B", 0),
        ("train --swanlab_api s3cret --swanlab_project p", "train --track-project p", 1),
        ("train lstm --resume", "train lstm", 1),
        ("train --resume lstm --lr 0.1", "train lstm --lr 0.1", 1),
        ("train --resume file.pth lstm", "train lstm", 1),
        ("train --resume out/last", "train", 1),
        ("train --resume --lr=0.1", "train --lr=0.1", 1),
        ("train --resume=best.pt gru", "train gru", 1),
        ("train --pin-memory True --persistent-workers false lstm", "train lstm", 2),
        ("train --pin_memory lstm", "train lstm", 1),
    ],
)  # fmt: skip
def test_translate(given, kept, num_notices):
    arguments, notices = translate(given.split())
    assert arguments == kept.split()
    assert len(notices) == num_notices
    assert "s3cret" not in " ".join(notices)
