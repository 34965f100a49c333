"""Options of training scripts that people copy from guides: some have nothing to do here, one needs a value.

The panel rests on the device that trains and a batch is a gather, so there is no loader to give workers or
pinned memory to. Such options are taken out of the command line with a notice instead of being refused.
"""

from __future__ import annotations

#: Option to (takes a value: yes, no, maybe; what to say).
_POINTLESS = {
    "--num-workers": ("yes", "there is no loader: the whole panel rests on the device"),
    "--pin-memory": ("no", "there is nothing to pin: the panel goes to the device once"),
    "--persistent-workers": ("no", "there is no loader: the whole panel rests on the device"),
    "--useGPU": ("maybe", "the device is chosen by --device cpu or --device cuda"),
    "--GPU_ID": ("yes", "the device is chosen by --device cuda:N"),
}
_TRUTHS = {"true", "false", "0", "1", "yes", "no"}
#: What ``--amp`` means without a value.
AMP_ALONE = "auto"


def translate(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the command line without options that have nothing to do, and a notice for each of them.

    Only ``train`` and ``plan train`` are touched.
    """
    if arguments[:1] != ["train"] and arguments[:2] != ["plan", "train"]:
        return arguments, []
    kept, notices, left = [], [], list(arguments)
    while left:
        option = left.pop(0)
        name, joined, _ = option.partition("=")
        if name in _POINTLESS:
            takes, why = _POINTLESS[name]
            if not joined and left and (takes == "yes" or (takes == "maybe" and left[0].lower() in _TRUTHS)):
                left.pop(0)
            notices.append(f"{name} has nothing to do here: {why}")
        elif option == "--amp" and (not left or left[0].startswith("-")):
            kept += ["--amp", AMP_ALONE]
        else:
            kept.append(option)
    return kept, notices
