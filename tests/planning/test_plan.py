"""Plans: counts equal the real thing, measurements are linear, rules say what they document, targets are marked."""

import io
import json
import shlex
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer

import barcast
from barcast.cli.app import _run, app
from barcast.core.config import to_plain
from barcast.core.errors import OutOfMemoryError, ResourceError, UsageError
from barcast.core.predictions import QUANTILE_LEVELS
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.models.heads import masked_pinball
from barcast.models.network import Sizes
from barcast.models.registry import model_entries, model_entry
from barcast.planning import machine, probe, room
from barcast.planning import plan as planning
from barcast.planning.memory import (
    MemoryPlan,
    device_plan,
    host_plan,
    largest_batch,
    network_components,
    resident_components,
)
from barcast.planning.network import (
    activation_bytes,
    beside_embeddings,
    flops_of_piece,
    parameters_by_component,
)
from barcast.planning.probe import Measured
from barcast.planning.rules import Scheme, independent_labels, suiting_scheme
from barcast.planning.workload import Workload
from barcast.training.config import TrainConfig
from barcast.training.predict import windows_a_chunk
from tests.journey.test_journey import DECLARED, TINY, write_market

NETWORKS = [entry.name for entry in model_entries() if entry.kind == "network"]
SIZES = Sizes(num_inputs=7, num_symbols=5, num_horizons=2)
MEASURED = Measured(
    threads=2, step_seconds=0.1, step_bytes=200 << 20, batch_share=1.0, judge_seconds=1e-3, predict_seconds=1e-5,
    predict_bytes=300 << 20, line_seconds=0.01, runtime_bytes=400 << 20, peak_flops=1e11, seconds=1.0,
)  # fmt: skip


def work_of(model="lstm", *, options=None, sizes=SIZES, **train):
    entry = model_entry(model)
    given = {"look_back_window": 10, "stretch_length": 20, "batch_size": 200, "amp": "off", **train}
    return Workload(
        model=model, options=options or entry.config(), train=TrainConfig(**given), sizes=sizes, num_rows=5000,
        num_sessions=1000, num_symbols=5, life_lengths=(1000,) * 5, num_labels=8000, num_teaching_rows=4000,
        num_pieces=200, num_stop_pieces=25, num_scored_rows=900,
    )  # fmt: skip


# --- the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NETWORKS)
def test_parameters_are_those_of_the_real_network_by_module(model):
    entry = model_entry(model)
    real = entry.build(entry.config(), SIZES)
    counted = parameters_by_component(entry, entry.config(), SIZES)
    assert counted == {
        name: number
        for name, child in real.named_children()
        if (number := sum(p.numel() for p in child.parameters()))
    }
    assert sum(counted.values()) == sum(p.numel() for p in real.parameters())
    embedding = entry.config().stock_embedding_dim * (SIZES.num_symbols + 1)
    assert beside_embeddings(entry, entry.config(), SIZES) == sum(counted.values()) - embedding


@pytest.mark.parametrize("model", NETWORKS)
def test_activations_are_linear_in_the_batch_and_hold_no_parameter(model):
    work = work_of(model)
    four, eight, more = (activation_bytes(work, pieces) for pieces in (4, 8, 16))
    assert more - eight == pytest.approx(2 * (eight - four), rel=0.01)
    wide = replace(
        work, sizes=replace(SIZES, num_symbols=200_000)
    )  # a table of 6 MB that nothing keeps a copy of
    assert activation_bytes(wide, 4) == pytest.approx(four, rel=0.01)


def test_matrix_arithmetic_of_an_mlp_is_what_pencil_and_paper_say():
    entry = model_entry("mlp")
    options = entry.config(hidden_size=16, num_layers=1, stock_embedding_dim=3)
    work = work_of("mlp", options=options)
    inner, head = (7 + 3) * 16, 16 * 2
    # forward, gradient of the weights, gradient of what they multiply (the embedding needs the first layer's)
    assert flops_of_piece(work) == 20 * 2 * 3 * (inner + head)


@pytest.mark.parametrize("model", ["lstm", "gru"])
def test_recurrent_arithmetic_by_formula_is_what_running_step_by_step_counts(model):
    from torch.utils.flop_counter import FlopCounterMode

    from barcast.planning.network import _batch, _on_meta

    work = work_of(model)
    network = _on_meta(work.entry, work.options, work.sizes).eval()
    with FlopCounterMode(display=False) as counter:
        with torch.device("meta"):
            inputs, symbol = _batch(work.sizes, 1, 29)
        network(inputs, symbol, 20).float().square().sum().backward()
    assert flops_of_piece(work) == pytest.approx(counter.get_total_flops(), rel=0.02)


# --- memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("adam", 2), ("sgd", 1)])
def test_what_is_deterministic_is_exact(optimizer, moments):
    """Beside the tensors of a real training after one step."""
    from barcast.training.checkpoint import copy_state

    work = work_of("gru", optimizer=optimizer)
    torch.manual_seed(0)
    network = work.entry.build(work.options, work.sizes)
    data = probe._synthetic(replace(work, life_lengths=(500, 500), num_rows=1000))
    stepper = probe._stepper(work, network, data)
    stepper.step(probe._pieces(work.train, data, 4), 0, 0.5)
    total = sum(p.numel() for p in network.parameters())
    found = network_components(work, total, 0, None)
    assert found["weights"] == sum(p.nbytes for p in network.parameters())
    assert found["gradients"] == sum(p.grad.nbytes for p in network.parameters())
    state = [v for values in stepper.optimizer.state.values() for v in values.values()]
    assert found["optimizer state"] == sum(v.nbytes for v in state if v.ndim)
    assert found["optimizer state"] == 4 * total * moments
    assert found["best weights"] == sum(t.nbytes for t in copy_state(network).values())
    resident = data.resident
    planned = host_plan(replace(work, num_rows=1000), found, MEASURED, None, "").components
    assert planned["panel"] == resident.inputs.nbytes
    assert planned["targets"] == resident.target.nbytes
    assert planned["row index"] == resident.symbol.nbytes + resident.life_start.nbytes


def test_kernel_workspace_is_what_was_measured_beyond_what_is_counted():
    work = work_of()
    more = network_components(work, 1000, 1 << 20, MEASURED)
    held = ("gradients", "optimizer state", "activations", "gather", "kernel workspace")
    assert sum(more[name] for name in held) == MEASURED.step_bytes
    less = network_components(work, 1000, 500 << 20, MEASURED)
    assert less["kernel workspace"] == 0
    assert sum(less[name] for name in held) == MEASURED.step_bytes


def test_phases_stand_on_each_other_and_the_peak_is_the_highest():
    work = work_of()
    found = host_plan(
        work, network_components(work, 1000, 1 << 20, MEASURED), MEASURED, 2 << 30, "MemAvailable"
    )
    assert found.phases["train"] == sum(found.components.values())
    assert found.phases["forecast"] == found.phases["train"] + MEASURED.predict_bytes
    assert found.peak == max(found.phases.values()) == found.phases[found.peak_phase]
    assert found.fits
    assert not replace(found, available=int(found.peak * 1.05)).fits  # a tenth stays free
    assert replace(found, available=None).fits is None


def test_features_are_there_once_while_they_are_normalised():
    work = replace(work_of(), num_rows=10**7)
    found = host_plan(work, {}, MEASURED, None, "")
    assert found.phases["features"] == found.phases["train"] == sum(found.components.values())
    scored = host_plan(replace(work, num_scored_rows=10**6), {}, MEASURED, None, "")
    more = 4 * 2 * 8 * 2 * (10**6 - work.num_scored_rows)  # ridge reads them twice, in float64
    assert scored.phases["compare"] - found.phases["compare"] == more


def test_a_panel_that_would_come_in_shards_is_no_reason_not_to_fit(unmeasured):
    work = replace(work_of(), num_rows=10**9)
    found = planning.make_plan(work, "a10").device
    assert found.fits and found.components["panel in shards"] == 12 << 30 and "panel" not in found.components
    assert "panel in shards" not in planning.make_plan(work_of(), "a10").device.components
    told = planning.make_plan(replace(work, train=replace(work.train, panel_memory_gib=2.0)))
    assert told.host.components["panel in shards"] == 2 << 30  # beside the whole one
    assert told.host.components["panel"] == 7 * 4 * 10**9
    assert any("comes in shards" in note for note in told.notes)


def test_heads_of_several_outputs_are_planned_and_measured_as_they_train():
    levels = len(QUANTILE_LEVELS)
    work = replace(
        work_of(sizes=replace(SIZES, num_horizons=2 * levels)), target="quantiles", life_lengths=(500,)
    )
    assert resident_components(work)["targets"] == 4 * 2 * work.num_rows
    data = probe._synthetic(work)
    assert data.resident.target.shape == (500, 2)
    network = work.entry.build(work.options, work.sizes)
    stepper = probe._stepper(work, network, data)
    assert stepper.loss is masked_pinball
    stepper.step(probe._pieces(work.train, data, 2), 0, 0.5)
    assert probe.read_workload(json.loads(json.dumps(to_plain(work)))) == work


def test_the_largest_batch_fits_and_a_larger_one_does_not():
    plan = MemoryPlan({"weights": 100, "activations": 1000, "gather": 0}, {"train": 1100}, 10_000, "test")
    work = work_of(batch_size=200)  # ten stretches of twenty
    most = largest_batch(work, plan)
    assert most == 89 * 20  # (9,000 - 100) / (1,000 / 10)
    assert largest_batch(work, replace(plan, available=50)) == 0
    assert largest_batch(work, replace(plan, available=None)) is None


def test_a_gpu_holds_the_panel_and_the_host_no_steps():
    work = work_of()
    network = network_components(work, 1000, 1 << 20, None)
    device = device_plan(work, network, 24 << 30, "a10")
    assert device.components["panel"] == 5000 * 7 * 4
    assert device.components["CUDA context (assumed)"] == machine.CONTEXT_BYTES
    host = host_plan(work, network, MEASURED, None, "", trains_here=False)
    assert not set(network) & set(host.components)
    assert host.phases["forecast"] == host.phases["train"]


def test_a_containers_limit_counts_where_it_leaves_less(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    assert machine.host_memory(tmp_path).available == 6_000_000 * 1024
    (group / "memory.max").write_text("max\n")
    assert machine.host_memory(tmp_path).limited_by == "MemAvailable"
    (group / "memory.max").write_text("2000000000\n")
    (group / "memory.current").write_text("500000000\n")
    found = machine.host_memory(tmp_path)
    assert (found.available, found.limited_by) == (1_500_000_000, "cgroup")
    assert machine.host_memory(tmp_path / "nowhere").available is None


@pytest.mark.parametrize(
    ("folder", "limit", "used", "cached"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
    ids=["v2", "v1"],
)
def test_files_that_a_container_keeps_cached_are_available(tmp_path, folder, limit, used, cached):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n")
    group = tmp_path / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    (group / limit).write_text("2000000000\n")
    (group / used).write_text("1900000000\n")
    assert machine.host_memory(tmp_path).available == 100_000_000
    # of v1, what is not total is of this group alone, without those within
    (group / "memory.stat").write_text(f"anon 300000000\nactive_file 50\n{cached} 1500000000\n")
    found = machine.host_memory(tmp_path)
    assert (found.available, found.limited_by) == (1_600_000_000, "cgroup")
    (group / "memory.stat").write_text(f"{cached} 1950000000\n")  # counted a moment later
    assert machine.host_memory(tmp_path).available == 2_000_000_000
    (group / "memory.stat").write_text("what nobody knows how to read\n")
    assert machine.host_memory(tmp_path).available == 100_000_000


# --- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbols", "labels", "choice"),
    [(1, 5000, "dedicated"), (2, 499, "universal"), (29, 500, "both"), (30, 999, "universal"),
     (30, 1000, "both"), (4000, 300, "universal"), (4000, 2500, "both")],
)  # fmt: skip
def test_the_scheme_follows_its_table(symbols, labels, choice):
    found = suiting_scheme(symbols, labels, 2500)
    assert found.choice == choice
    assert f"{symbols:,} symbols" in found.reasons[0]
    assert len(found.reasons) == 2


def test_overlapping_labels_are_not_independent():
    assert independent_labels(1000, (5, 20)) == 200
    assert independent_labels(1000, (1,)) == 1000


def test_time_is_extrapolated_by_a_line_that_grows_no_faster_than_the_batch():
    assert probe._on_line(10, 1.0, 20, 1.5, 40) == pytest.approx(2.5)
    assert probe._on_line(10, 1.0, 20, 4.0, 40) == pytest.approx(8.0)
    assert probe._on_line(10, 2.0, 20, 1.9, 40) == pytest.approx(1.9)


def test_a_part_of_a_slow_batch_is_measured_in_pieces_of_the_size_that_will_be_computed_at_once():
    work = work_of(batch_size=128 * 120, stretch_length=120, gradient_accumulation_steps=8)
    assert work.part_pieces == 16
    for affordable, expected in {9: (1, 9), 20: (1, 16), 40: (2, 32), 127: (8, 127)}.items():
        found, most = probe._in_part(work, affordable)
        assert (found.train.gradient_accumulation_steps, most) == expected


def test_a_wider_network_forecasts_fewer_windows_at_once():
    chunks = []
    for width in (8, 64, 128, 640):
        options = model_entry("transformer").config(hidden_size=width)
        network = model_entry("transformer").build(options, SIZES)
        chunks.append(windows_a_chunk(network, 60, 49))
    assert chunks == [512, 512, 256, 51]


# --- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("plan")
    write_market(root / "bars", symbols=32, sessions=500)
    assert _run(["data", "import", str(root / "bars"), "-w", str(root), *DECLARED], debug=False) == 0
    return root


@pytest.fixture
def unmeasured(monkeypatch):
    """Plans without a probe process."""
    monkeypatch.setattr(planning, "run_probe", lambda work: MEASURED)


def plan(place, capsys, *more):
    assert (
        _run(["plan", "train", "lstm", "-w", str(place), *TINY, "--json", "--quiet", *more], debug=False) == 0
    )
    return json.loads(capsys.readouterr().out)


def test_a_plan_counts_what_a_run_then_sees(place, capsys):
    """The probe included: a real process that measures."""
    found = plan(place, capsys, "--threads", "1")
    result = barcast.train(
        "lstm", workspace=place, epochs=1, hidden_size=8, num_layers=1, look_back_window=20, amp="off", threads=1,
        report=False,
    )  # fmt: skip
    info = result.run.info
    assert found["data"]["bars"] == info["num_rows"]
    assert found["data"]["teaching_rows"] == found["data"]["labels"] == info["num_teaching_rows"]
    assert found["data"]["forecast_rows"] == info["num_predictions"]
    assert found["parameters"]["total"] == info["num_parameters"]
    assert found["compute"]["steps_per_epoch"] == info["steps"]
    assert found["compute"]["basis"] == "measured"
    assert found["measured"]["threads"] == 1
    assert 0 < found["compute"]["share_of_peak"] < 1
    assert found["memory"]["host"]["peak_bytes"] > found["measured"]["runtime_bytes"] > 50 << 20


def test_parameters_of_every_output_are_counted(place, capsys, unmeasured):
    plain, quantiles = plan(place, capsys), plan(place, capsys, "--target", "quantiles")
    more = quantiles["parameters"]["total"] - plain["parameters"]["total"]
    assert more == (len(QUANTILE_LEVELS) - 1) * (plain["options"]["hidden_size"] + 1)
    panel = [found["memory"]["host"]["components"]["targets"] for found in (plain, quantiles)]
    assert panel[0] == panel[1]


def test_the_json_has_these_keys(place, capsys, unmeasured):
    before = list_runs(Workspace(place))
    found = plan(place, capsys)
    assert set(found) == {
        "model", "options", "train", "target", "data", "parameters", "memory", "compute", "run_seconds",
        "largest_batch", "fits", "scheme", "measured", "notes",
    }  # fmt: skip
    assert set(found["memory"]) == {"host", "device"}
    assert found["memory"]["device"] is None
    assert set(found["memory"]["host"]) == {
        "components", "phases", "peak_bytes", "peak_phase", "available_bytes", "limited_by", "headroom_bytes", "fits",
    }  # fmt: skip
    assert {"flops_per_epoch", "bytes_per_epoch", "seconds_per_epoch", "labels_per_second"} <= set(
        found["compute"]
    )
    assert list_runs(Workspace(place)) == before


@pytest.mark.parametrize("words", [("--target", "a10"), ("--on", "a10", "--target", "rank")])
def test_other_devices_are_marked_as_unverified(place, capsys, unmeasured, words):
    found = plan(place, capsys, *words)
    assert found["target"] == "a10"
    assert found["memory"]["device"]["verified"] is False
    assert found["compute"]["verified"] is False
    assert found["compute"]["basis"] == "roofline"
    assert (
        sum("unverified: no such device has confirmed this formula" in note for note in found["notes"]) == 2
    )


def test_the_page_for_people_ends_with_the_command_to_type(place, capsys, unmeasured):
    words = ["plan", "train", "lstm", "-w", str(place), *TINY, "--on", "h100"]
    assert _run(words, debug=False) == 0
    said = capsys.readouterr().out
    for part in (
        "Parameters",
        "Host memory",
        "Device memory: NVIDIA H100",
        "unverified",
        "largest batch",
        "scheme",
    ):
        assert part in said
    assert said.strip().splitlines()[-1].startswith("next: ")
    assert " of the peak of 67.0 TFLOP/s (roofline)" in said


def test_plans_take_what_trainings_take(place, capsys, unmeasured):
    """All but what trains nothing; what shapes nothing of a plan is named."""
    commands = typer.main.get_command(app).commands
    trains, plans = commands["train"], commands["plan"].commands["train"]
    names, known = ({each.name for each in command.params} for command in (trains, plans))
    assert names - known == {"refit", "range_test", "dry_run", "list_models"}
    words = shlex.split(
        "--final --fresh --no-report --output-dir x --profile --track mlflow --track-project p"
    )
    bare, found = plan(place, capsys), plan(place, capsys, *words)
    assert all(bare[part] == found[part] for part in ("data", "parameters", "compute", "run_seconds"))
    typed = ["plan", "train", "lstm", "-w", str(place), *TINY, "--quiet", "--json", *words]
    assert _run(typed, debug=False) == 0
    named = "--final, --fresh, --no-report, --output-dir, --profile, --track, --track-project"
    assert capsys.readouterr().err == f"{named}: no part of what is planned\n"


def test_the_best_of_a_search_is_planned(place, capsys, unmeasured, tmp_path):
    shutil.copytree(place / "market", tmp_path / "market")
    (folder := tmp_path / "runs" / "tune-gru-1").mkdir(parents=True)
    (folder / "tune.json").write_text(json.dumps({"model": "gru", "command": "barcast tune gru"}))
    (folder / "best.toml").write_text("[gru]\nhidden_size = 24\n[train]\nlook_back_window = 20\n")
    typed = ["plan", "train", "--tuned", "tune-gru", "-w", str(tmp_path), "--json", "-q"]
    assert _run(typed, debug=False) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["options"]["hidden_size"]) == ("gru", 24)
    work = barcast.plan_train(workspace=tmp_path, tuned="tune-gru").work
    assert (work.model, work.options.hidden_size) == ("gru", 24)
    with pytest.raises(UsageError, match="is of gru, not lstm"):
        barcast.plan_train("lstm", workspace=tmp_path, tuned="tune-gru")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("dedicated", [("next", "fleet"), ("as planned", "train")]),
        ("both", [("next", "train"), ("then", "fleet")]),
        ("universal", [("next", "train")]),
    ],
)
def test_a_scheme_with_dedicated_models_names_the_command_that_plans_them(
    place, capsys, unmeasured, monkeypatch, choice, said
):
    monkeypatch.setattr(planning, "suiting_scheme", lambda *_: Scheme(choice, ("counts", "why")))
    typed = ["--horizon", "1,5", "--symbols", "SYM01,SYM02", "--seed", "3", "--dropout", "0.2"]
    assert _run(["plan", "train", "lstm", "-w", str(place), *TINY, *typed], debug=False) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(": barcast ", 1) for line in lines if ": barcast " in line]
    assert [(label, command.split()[0]) for label, command in told] == said
    fleet = ["fleet", "trees", "--horizon", "1,5", "--symbols", "SYM01,SYM02", "--seed", "3", "--dry-run"]
    for _, command in told:
        if command.startswith("fleet"):
            assert shlex.split(command)[: len(fleet) + 1] == [*fleet, "-w"]


def test_a_word_that_is_no_machine_names_the_option_that_was_typed(place, capsys):
    for typed, asked in (
        ("--on cpu", "no target `cpu`"),
        ("--target a11", "--target a11: neither a machine"),
    ):
        assert _run(["plan", "train", "lstm", "-w", str(place), *typed.split()], debug=False) == 2
        said = capsys.readouterr().err
        assert asked in said and "--on this, a10, rtx3080, h100, h800" in said
    assert "or --target auto, rank" in said


def test_a_part_of_a_batch_is_told_with_the_machine_that_measured_it(monkeypatch):
    part = replace(MEASURED, batch_share=0.09)
    monkeypatch.setattr(planning, "run_probe", lambda *_, **__: part)
    notes = " ".join(planning.make_plan(work_of(), "h100").notes)
    assert "takes long on this machine: 9% of one was measured here" in notes


def test_a_plan_that_does_not_fit_says_so(place, capsys, unmeasured, monkeypatch):
    small = machine.HostMemory(300 << 20, 1 << 30, "cgroup")
    monkeypatch.setattr(planning, "host_memory", lambda: small)
    assert _run(["plan", "train", "lstm", "-w", str(place), *TINY, "--quiet"], debug=False) == 0
    said = capsys.readouterr().out
    assert "this does not fit" in said
    assert "--batch-size" in said


def test_what_cannot_be_planned_is_refused(place):
    with pytest.raises(UsageError, match="only networks are planned"):
        barcast.plan_train("ridge", workspace=place)
    for options in ({}, {"size": "auto"}):
        with pytest.raises(UsageError, match="`fleet-lstm` fits a model for each symbol") as refused:
            barcast.plan_train("fleet-lstm", workspace=place, **options)
        assert refused.value.todo == "barcast fleet lstm --dry-run"
    with pytest.raises(UsageError, match="no target `tpu`"):
        barcast.plan_train("lstm", workspace=place, on="tpu")
    with pytest.raises(UsageError, match="time_budget"):
        barcast.plan_train("lstm", workspace=place, time_budget=5)


def test_a_probe_that_dies_is_explained(monkeypatch):
    monkeypatch.setattr(probe.sys, "executable", "false")
    with pytest.raises(ResourceError, match="could not be measured"):
        probe.run_probe(work_of())


@pytest.mark.parametrize(
    ("code", "stderr", "short", "said"),
    [
        (1, "Traceback\nImportError: libtorch.so", False, "ImportError: libtorch.so"),
        (-11, "", False, "ended by signal 11"),
        (-9, "", True, "ended by signal 9, as systems do when memory runs out"),
        (probe.SHORT_OF_MEMORY, "no room for weights", True, "no room for weights"),
    ],
)
def test_only_memory_that_ran_out_says_that_a_network_is_too_large(monkeypatch, code, stderr, short, said):
    done = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(probe.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(ResourceError) as refused:
        probe.run_probe(work_of())
    assert isinstance(refused.value, OutOfMemoryError) == short
    assert refused.value.found.endswith(said)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            "not enough memory for the sm",
        ),
        (OutOfMemoryError("no room for weights", "less"), "no room for weights"),
    ],
)
def test_memory_that_runs_out_in_the_probe_is_told_in_words(monkeypatch, capsys, error, said):
    def refuse(work):
        raise error

    monkeypatch.setattr(probe, "measure", refuse)
    monkeypatch.setattr(probe.sys, "stdin", io.StringIO(json.dumps(to_plain(work_of()))))
    with pytest.raises(SystemExit) as ended:
        probe.main()
    assert ended.value.code == probe.SHORT_OF_MEMORY
    assert capsys.readouterr().err.startswith(said)


def test_what_else_the_probe_meets_is_no_lack_of_memory(monkeypatch):
    def refuse(work):
        raise ResourceError("no space left on the disk")

    monkeypatch.setattr(probe, "measure", refuse)
    monkeypatch.setattr(probe.sys, "stdin", io.StringIO(json.dumps(to_plain(work_of()))))
    with pytest.raises(SystemExit) as ended:
        probe.main()
    assert ended.value.code == "no space left on the disk"


@pytest.mark.parametrize(("optimizer", "copies"), [("adamw", 5), ("sgd", 4)])
def test_a_network_larger_than_the_memory_is_refused_before_anything_is_measured(
    monkeypatch, optimizer, copies
):
    work = work_of(optimizer=optimizer)
    needed = 4 * copies * sum(parameters_by_component(work.entry, work.options, work.sizes).values())
    monkeypatch.setattr(planning, "run_probe", lambda work: MEASURED)
    monkeypatch.setattr(room, "host_memory", lambda: machine.HostMemory(needed, needed, "cgroup"))
    planning.make_plan(work)
    monkeypatch.setattr(room, "host_memory", lambda: machine.HostMemory(needed - 1, needed, "cgroup"))
    monkeypatch.setattr(planning, "run_probe", lambda work: pytest.fail("nothing is to be measured"))
    with pytest.raises(ResourceError, match=r"parameters, which take at least .*\(cgroup\)") as refused:
        planning.make_plan(work)
    assert refused.value.todo.startswith("a smaller network")
    monkeypatch.setattr(room, "host_memory", lambda: machine.HostMemory(None, None, "unknown"))
    room.check_room(work.entry, work.options, work.sizes, work.train)


def test_the_probes_rows_are_a_sample_of_the_lives():
    lengths = tuple(int(n) for n in np.random.default_rng(0).integers(100, 4000, 3000))
    taken = probe._sample(lengths)
    assert probe.MOST_ROWS <= sum(taken) < probe.MOST_ROWS + 4000
    assert set(taken) <= set(lengths)
    assert probe._sample((10**7,)) == [probe.MOST_ROWS]


@pytest.mark.parametrize(
    ("target", "typed", "kept"),
    [
        ("this", [], "train"),
        ("a10", ["plan", "train", "gru", "--on", "a10", "--json"], "train gru --device cuda"),
        ("a10", ["plan", "train", "--device=cuda:1", "--on", "a10"], "train --device=cuda:1"),
        ("this", ["plan", "train", "gru", "--target", "rank", "--on=this", "-q"], "train gru --target rank"),
        ("this", ["plan", "train", "--final", "--track", "mlflow"], "train --final --track mlflow"),
        (
            "h100",
            ["plan", "train", "gru", "--target", "rank", "--target=h100"],
            "train gru --target rank --device cuda",
        ),
    ],
)
def test_the_next_command_is_the_planned_one_without_a_plans_own_words(target, typed, kept, monkeypatch):
    from barcast.cli.plan import _training_command

    monkeypatch.setattr("sys.argv", ["/somewhere/else/bin/barcast", *typed])
    assert _training_command(target) == f"barcast {kept}"
