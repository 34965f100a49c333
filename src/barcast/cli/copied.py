"""Options of training scripts that people copy from guides: renamed, completed, or dropped with a notice.

The panel rests on the device that trains and a batch is a gather, so there is no loader to give workers or
pinned memory to. Such options are taken out of the command line with a notice instead of being refused, and
what was taken out is not recorded with the run either.
"""

from __future__ import annotations

_NO_LOADER = "there is no loader: the whole panel rests on the device"
_STORE = "bars come from the market store: barcast data import"
_RUN_FOLDER = "everything of a run is in its folder: barcast runs; --output-dir copies it"
#: Option to (takes a value: yes, no, maybe; what to say).
_POINTLESS = {
    "--num-workers": ("yes", _NO_LOADER),
    "--pin-memory": ("no", "there is nothing to pin: the panel goes to the device once"),
    "--persistent-workers": ("no", _NO_LOADER),
    "--useGPU": ("maybe", "the device is chosen by --device cpu or --device cuda"),
    "--GPU-ID": ("yes", "the device is chosen by --device cuda:N"),
    "--resume": ("no", "a run that was cut off goes on by itself; --fresh begins anew"),
    "--no-cache": ("no", "caches are named by what they hold and cannot be stale"),
    "--kline-cache-dir": ("yes", _STORE),
    "--feature-cache-dir": ("yes", "features are cached in the workspace: --workspace"),
    "--batch-first": ("maybe", "arrays have one order"),
    "--input-size": ("yes", "the feature set decides: --features"),
    "--model-save-folder": ("yes", _RUN_FOLDER),
    "--figure-save-folder": ("yes", _RUN_FOLDER),
    "--test-result-save-folder": ("yes", _RUN_FOLDER),
    "--swanlab-api": ("yes", "a key belongs into the environment, SWANLAB_API_KEY; it was not read"),
}
#: What others call our options.
_RENAMED = {
    "--model": "--model-type",
    "--layers": "--num-layers",
    "--look-back": "--look-back-window",
    "--swanlab-project": "--track-project",
    "--swanlab-workspace": "--track-workspace",
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
        word = left.pop(0)
        option, joined, value = word.partition("=")
        name = option.replace("_", "-") if option.startswith("--") else option
        if name in _POINTLESS:
            takes, why = _POINTLESS[name]
            if not joined and left and (takes == "yes" or (takes == "maybe" and left[0].lower() in _TRUTHS)):
                left.pop(0)
            notices.append(f"{option} has nothing to do here: {why}")
        elif word == "--amp" and (not left or left[0].startswith("-")):
            kept += ["--amp", AMP_ALONE]
        else:
            kept.append(_RENAMED.get(name, name) + joined + value)
    return kept, notices
