"""Options of training scripts that people copy from guides: renamed, completed, or dropped with a notice.

The panel rests on the device that trains and a batch is a gather, so there is no loader to give workers or
pinned memory to. Such options are taken out of the command line with a notice instead of being refused, and
what was taken out is not recorded with the run either.
"""

from __future__ import annotations

_NO_LOADER = "there is no loader: the whole panel rests on the device"
_STORE = "bars come from the market store: barcast data import"
_RUN_FOLDER = "everything of a run is in its folder: barcast runs; --output-dir copies it"
#: Option to (the value it takes: any, or a truth word or a path that may stand there; what to say).
_POINTLESS = {
    "--num-workers": ("any", _NO_LOADER),
    "--pin-memory": ("truth", "there is nothing to pin: the panel goes to the device once"),
    "--persistent-workers": ("truth", _NO_LOADER),
    "--useGPU": ("truth", "the device is chosen by --device cpu or --device cuda"),
    "--GPU-ID": ("any", "the device is chosen by --device cuda:N"),
    "--resume": ("path", "a run that was cut off goes on by itself; --fresh begins anew"),
    "--no-cache": ("truth", "caches are named by what they hold and cannot be stale"),
    "--kline-cache-dir": ("any", _STORE),
    "--feature-cache-dir": ("any", "features are cached in the workspace: --workspace"),
    "--batch-first": ("truth", "arrays have one order"),
    "--input-size": ("any", "the feature set decides: --features"),
    "--model-save-folder": ("any", _RUN_FOLDER),
    "--figure-save-folder": ("any", _RUN_FOLDER),
    "--test-result-save-folder": ("any", _RUN_FOLDER),
    "--swanlab-api": ("any", "a key belongs into the environment, SWANLAB_API_KEY; it was not read"),
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
            if not joined and left and _is_value(left[0], takes):
                left.pop(0)
            notices.append(f"{option} has nothing to do here: {why}")
        elif word == "--amp" and (not left or left[0].startswith("-")):
            kept += ["--amp", AMP_ALONE]
        else:
            kept.append(_RENAMED.get(name, name) + joined + value)
    return kept, notices


def _is_value(word: str, kind: str) -> bool:
    """Return whether the word after an option is its value; a word that may be the model's name is not."""
    if kind == "any" or word.lower() in _TRUTHS:
        return True
    return kind == "path" and not word.startswith("-") and ("." in word or "/" in word)
