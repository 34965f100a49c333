"""Embeddings from the command line: facts in, neighbours, purity, map and file out; attributes through a whole run."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.runs import list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.attributes import identity_codes, values_of, vocabularies
from barcast.pipeline.embeddings import read_embeddings
from barcast.pipeline.market import held_out
from barcast.pipeline.predict import predict
from barcast.pipeline.settings import resolve
from barcast.pipeline.train import train
from barcast.store import MarketStore
from barcast.store.facts import conform_facts, join_facts
from barcast.training.checkpoint import load_tensors, save_tensors
from tests.store.builders import make_store, rows

BOARDS = ("600", "000", "300", "688")
SYMBOLS = tuple(
    sorted(f"{board}{n:03d}.{'SH' if board[0] == '6' else 'SZ'}" for board in BOARDS for n in range(10))
)
NEW = "603999.SH"
TINY = {
    "features": "core12", "epochs": 1, "hidden_size": 8, "num_layers": 1, "look_back_window": 20, "amp": "off",
    "stretch_length": 30, "threads": 1,
}  # fmt: skip


def industry(symbol):
    return "" if symbol.startswith("000005") else f"I{int(symbol[3:6]) % 2}"


def facts_table(symbols=SYMBOLS):
    lines = [f"{s},N{s[:6]},{industry(s)}" for s in symbols]
    return "symbol,name,industry\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Forty A-shares with facts, an LSTM that is told industry and board, and an LSTM that is not."""
    root = tmp_path_factory.mktemp("embeddings")
    make_store(root / "market", rows(symbols=SYMBOLS, count=370), market="cn")
    (root / "facts.csv").write_text(facts_table(), encoding="utf-8")
    assert _run(["data", "facts", str(root / "facts.csv"), "-w", str(root)], debug=True) == 0
    workspace = Workspace(root)
    for options in ({"static": ("industry", "board"), "hold_out_fold": fold()}, {}):
        train(workspace, resolve(workspace, "lstm", {**TINY, **options}))
    return workspace


def fold():
    """A fold that holds out two symbols or more."""
    return max(range(20), key=lambda one: held_out(SYMBOLS, one).sum())


def run_of(place, told):
    return next(r for r in list_runs(place) if bool(r.read("state.json")["attributes"]) == told)


def ask(capsys, *arguments):
    capsys.readouterr()
    code = _run(["embeddings", *map(str, arguments)], debug=False)
    out = capsys.readouterr()
    return code, out.out if code == 0 else out.err


def planted(place, tmp_path):
    """A copy of the plain run whose vectors say the industry, beside noise."""
    run = run_of(place, told=False)
    copy = place.root / "runs" / "lstm-planted"
    copy.mkdir(exist_ok=True)
    for file in run.path.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(info | {"name": "lstm-planted"}))
    tensors, header = load_tensors(copy / "weights.safetensors")
    weight = tensors["identity.embedding.weight"]
    for row, symbol in enumerate(run.read("state.json")["vocabulary"], start=1):
        weight[row, 0] = 1.0 if industry(symbol) == "I1" else -1.0
    save_tensors(copy / "weights.safetensors", tensors, header)
    return open_run(place, "lstm-planted")


# --- facts -------------------------------------------------------------------------------------------------


def test_facts_are_versioned_and_told_value_by_value(tmp_path, capsys):
    store = make_store(tmp_path / "market", rows(symbols=SYMBOLS[:3], count=30), market="cn")
    assert store.facts().columns == ["symbol"]
    first = pl.DataFrame({"Symbol": ["300000", "sz.000000"], "Industry": ["x", "y"]})
    assert barcast.facts(first, workspace=tmp_path).height == 2
    more = pl.DataFrame({"symbol": ["300000"], "industry": [""], "name": ["A"]})
    known = {row["symbol"]: row for row in barcast.facts(more, workspace=tmp_path).to_dicts()}
    assert known["300000.SZ"] == {"symbol": "300000.SZ", "industry": "x", "name": "A"}
    assert known["000000.SZ"]["industry"] == "y"
    assert barcast.facts(workspace=tmp_path, version=1).columns == ["symbol", "industry"]
    assert MarketStore.open(tmp_path / "market").version == 2
    assert barcast.facts(more, workspace=tmp_path, replace=True).height == 1
    assert _run(["data", "facts", "-w", str(tmp_path), "--json"], debug=False) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "A"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"symbol": ["600519"]}, "columns symbol"),
        ({"stock": ["600519"], "industry": ["x"]}, "columns stock, industry"),
        (
            {"code": ["600519"], "股票代码": ["600519"], "industry": ["x"]},
            "`code`, `股票代码` are all symbol",
        ),
        ({"symbol": ["600519"], "industry": ["x"], "行业": ["x"]}, "`industry`, `行业` are all industry"),
        ({"symbol": ["600519", "sh.600519"], "industry": ["x", "y"]}, "disagree about 600519.SH"),
        ({"symbol": ["?!", None], "industry": ["x", "y"]}, r"no symbol .*\?!.*1 row without a symbol"),
    ],
)
def test_tables_of_facts_that_cannot_be_read(table, said):
    with pytest.raises(DataError, match=said):
        conform_facts(pl.DataFrame(table), "cn")


def test_ordinary_headers_and_rows_of_other_markets(tmp_path, capsys):
    make_store(tmp_path / "market", rows(symbols=SYMBOLS[:3], count=30), market="cn")
    for head in (
        "代码,名称,所属行业,板块,地域",
        "Code,name,industry,board,area",
        "ts_code,股票简称,行业,board,地区",
    ):
        (tmp_path / "f.csv").write_text(
            f"{head}\n{SYMBOLS[0]},A,x,m,n\n999999,B,x,m,n\nAAPL,C,y,m,n\n,D,z,m,n\n600519,E,y,m,n\n",
            encoding="gb18030",
        )
        assert (
            _run(["data", "facts", str(tmp_path / "f.csv"), "--replace", "-w", str(tmp_path)], debug=False)
            == 0
        )
        said = capsys.readouterr().out
        assert "3 left out, e.g. `999999`: no exchange lists" in said and "1 row without a symbol" in said
        assert "1 symbols have no bar here, e.g. 600519.SH" in said
        known = barcast.facts(workspace=tmp_path)
        assert known.columns == ["symbol", "name", "industry", "board", "area"]
        assert known["symbol"].to_list() == [SYMBOLS[0], "600519.SH"]
    both = conform_facts(
        pl.DataFrame({"ts_code": ["600519.SH"], "symbol": ["600519"], "name": ["x"]}), "cn"
    ).facts
    assert both.columns == ["symbol", "ts_code", "name"]  # what is called symbol is it


def test_joining_nothing_changes_nothing():
    table = conform_facts(pl.DataFrame({"symbol": ["AAPL"], "industry": ["x"]}), "us").facts
    assert join_facts(pl.DataFrame(schema={"symbol": pl.String}), table).equals(table)
    assert join_facts(table, table).equals(table)


# --- attributes --------------------------------------------------------------------------------------------


def test_values_come_from_the_code_or_from_facts():
    facts = pl.DataFrame({"symbol": ["600000.SH"], "industry": ["bank"], "board": ["wrong"]})
    symbols = ("000001.SZ", "300001.SZ", "510300.SH", "600000.SH", "688001.SH", "830001.BJ")
    found = values_of(facts, "cn", ("board", "exchange", "industry"), symbols)
    assert found["board"] == ("main", "chinext", "", "main", "star", "beijing")
    assert found["exchange"] == ("SZ", "SZ", "SH", "SH", "SH", "BJ")
    assert found["industry"] == ("", "", "", "bank", "", "")
    with pytest.raises(UsageError, match="no symbol here has a known `exchange`; on record: industry, board"):
        values_of(facts, "us", ("exchange",), symbols)


def test_vocabularies_hold_what_taught_and_codes_are_zero_elsewhere():
    values = {"industry": ("b", "a", "", "new")}
    known = vocabularies(values, np.array([True, True, True, False]))
    assert known == {"industry": ("a", "b")}
    own = np.array([1, 2, 3, 0])
    np.testing.assert_array_equal(identity_codes(own, values, known), [[1, 2], [2, 1], [3, 0], [0, 0]])
    assert identity_codes(own, {}, {}) is own


def test_a_run_records_its_vocabularies_and_serves_unseen_symbols_by_them(place, tmp_path):
    run = run_of(place, told=True)
    state, taught = run.read("state.json"), set(run.read("state.json")["vocabulary"])
    assert state["attributes"] == {"industry": ["I0", "I1"], "board": ["chinext", "main", "star"]}
    held = [s for s, out in zip(SYMBOLS, held_out(SYMBOLS, fold()), strict=True) if out]
    assert len(held) >= 2 and not taught & set(held)
    before = predict(place, run, save=False, allow_old=True).table
    # what the industry's embedding says reaches a symbol that nobody has seen
    tensors, header = load_tensors(run.weights)
    assert tensors["identity.attribute_embeddings.0.weight"].shape == (3, 4)
    kept = run.weights.read_bytes()
    tensors["identity.attribute_embeddings.0.weight"][1] += 3.0
    save_tensors(run.weights, tensors, header)
    try:
        after = predict(place, run, save=False, allow_old=True).table
    finally:
        run.weights.write_bytes(kept)
    both = before.join(after, on="symbol", suffix="_after")
    changed = {row["symbol"] for row in both.to_dicts() if row["score"] != row["score_after"]}
    assert changed == {s for s in both["symbol"] if industry(s) == "I0"}
    assert changed & set(held)


def test_other_facts_make_another_run_only_where_the_model_reads_them(place, tmp_path):
    root = tmp_path / "other"
    make_store(root / "market", rows(symbols=SYMBOLS, count=370), market="cn")
    barcast.facts(pl.DataFrame({"symbol": SYMBOLS, "industry": ["same"] * 39 + ["other"]}), workspace=root)
    other = Workspace(root)
    names = []
    for options in ({"static": ("industry", "board"), "hold_out_fold": fold()}, {}):
        names.append(train(other, resolve(other, "lstm", {**TINY, **options})).run.name)
    assert names[0] != run_of(place, told=True).name
    assert names[1] == run_of(place, told=False).name


def test_a_run_without_attributes_keeps_its_identity(place):
    identity = resolve(place, "lstm", TINY).identity()
    assert "static" not in identity["options"]
    assert resolve(place, "lstm", {**TINY, "static": ("board",)}).identity()["options"]["static"] == ["board"]


def test_only_networks_take_attributes_and_unknown_ones_are_named(place):
    with pytest.raises(UsageError, match="`static` is not an option of model `ridge`"):
        resolve(place, "ridge", {"static": ("board",)})
    with pytest.raises(UsageError, match="no symbol here has a known `sector`"):
        train(place, resolve(place, "lstm", {**TINY, "static": ("sector",)}))


# --- the command -------------------------------------------------------------------------------------------


def test_neighbours_purity_map_and_file(place, tmp_path, capsys):
    run = planted(place, tmp_path)
    page, vectors = tmp_path / "map.html", tmp_path / "v.csv"
    code, said = ask(
        capsys, run.name, "-w", place.root, "--symbol", "600001", "--neighbours", 5, "--purity", "industry",
        "--map", page, "--export", vectors,
    )  # fmt: skip
    assert code == 0 and "longer than fresh random ones" in said
    assert "more than chance, 2." in said and "N600003" in said
    html = page.read_text(encoding="utf-8")
    assert 'data-choice="theme:dark"' in html and 'data-choice="up:' not in html
    assert "N600001" in html and "http" not in html.split("<script")[1].split("</script>")[0]
    frame = pl.read_csv(vectors)
    assert frame.columns == ["symbol", "name", "industry", "exchange", "board", *(f"e{i}" for i in range(8))]
    assert frame.height == 40 and frame.filter(symbol="600001.SH")["e0"].item() == 1.0
    code, said = ask(capsys, run.name, "-w", place.root, "--purity", "industry", "--json")
    found = json.loads(said)
    assert len(found["neighbours"]) == 400 and found["has_moved"]
    pure = found["purity"][0]
    assert pure["value"] > 0.95 and pure["p_value"] < 0.01 and pure["more_than_chance"]
    assert pure["chance_low"] < pure["chance"] < pure["chance_high"] < pure["value"]


def test_a_run_that_learned_nothing_is_said_to_know_nothing(place, capsys):
    run = run_of(place, told=False)
    tensors, header = load_tensors(run.weights)
    kept = run.weights.read_bytes()
    tensors["identity.embedding.weight"].normal_(0, 0.01)
    save_tensors(run.weights, tensors, header)
    try:
        code, said = ask(capsys, run.name, "-w", place.root, "--lang", "zh")
    finally:
        run.weights.write_bytes(kept)
    assert code == 0 and "没有学到标的之间的差别" in said


def test_facts_for_this_once_and_what_the_model_was_told(place, tmp_path):
    run = run_of(place, told=True)
    found = read_embeddings(place, run, facts=pl.DataFrame({"symbol": SYMBOLS[:20], "area": ["n", "s"] * 10}))
    assert found.columns == ("industry", "area", "exchange", "board") and found.told == ("industry", "board")
    assert "area" not in barcast.facts(workspace=place.root).columns
    assert found.neighbours("300001", 3)["neighbour"].n_unique() == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--symbol", "600999"], "600999"),
        (["--purity", "sector"], "no symbol here has a known `sector`; known: industry, exchange, board"),
        (["--map", "map.png"], ".html"),
        (["--export", "v.xlsx"], "v.xlsx does not end in .parquet, .csv, .tsv"),
        (["--neighbours", "40"], "--neighbours 1 to 39"),
    ],
)
def test_mistakes_are_explained(place, capsys, flags, said):
    code, text = ask(capsys, run_of(place, told=False).name, "-w", place.root, *flags)
    assert code in (2, 3) and said in text


def test_weights_that_are_gone_are_named_with_the_command(place, tmp_path, capsys):
    run = planted(place, tmp_path)
    run.weights.unlink()
    run.update(command="barcast train lstm --epochs 1")
    code, text = ask(capsys, run.name, "-w", place.root)
    assert code == 5 and "cannot be used: no file" in text and "barcast train lstm --epochs 1 --fresh" in text


def test_facts_that_are_not_used_are_said(place):
    table = pl.DataFrame({"code": ["AAPL", *SYMBOLS[:20]], "area": ["x", *["n", "s"] * 10]})
    found = read_embeddings(place, run_of(place, told=False), facts=table)
    assert "AAPL" in found.warnings()[0].en and "area" in found.columns


def test_a_model_without_identity_is_refused(place):
    run = train(place, resolve(place, "lstm", {**TINY, "stock_embedding_dim": 0})).run
    with pytest.raises(RunError, match="has no symbol embedding"):
        barcast.embeddings(run.name, workspace=place.root)


# --- cold start --------------------------------------------------------------------------------------------


def test_cold_start_on_a_small_made_up_market(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import coldstart_bench as bench

    monkeypatch.setattr(bench, "COMMON", 0.8)
    default, told = "with identity", "with identity and industry"
    monkeypatch.setattr(
        bench, "MODELS", {name: bench.MODELS[name] | {"lr": 0.01} for name in (bench.WITHOUT, default, told)}
    )
    size = bench.Size(num_symbols=120, num_sessions=260, epochs=5)
    found = bench.run_folds(bench.make_market(tmp_path / "ws", size), size, 1)[True]
    base = found[bench.WITHOUT]
    for name in (bench.WITHOUT, default, told):
        assert bench.retains(found[name], base, horizon=1, delay=1), name
    assert not bench.retains(found[bench.CONSTANT], base, horizon=1, delay=1)
    sys.modules.pop("coldstart_bench")
