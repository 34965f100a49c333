"""Every registered model: shapes, determinism, no future, save and load, learning."""

from dataclasses import fields, is_dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from barcast.core.errors import UsageError
from barcast.models.lstm import LSTMConfig
from barcast.models.network import Sizes, masked_mse
from barcast.models.registry import model_entries, model_entry
from barcast.models.transformer import TransformerConfig
from barcast.training.checkpoint import load_arrays, save_arrays
from tests.conftest import make_bars

NETWORKS = [entry for entry in model_entries() if entry.kind == "network"]
TABULAR = [entry for entry in model_entries() if entry.kind == "tabular"]
NAIVE = [entry for entry in model_entries() if entry.kind == "naive"]
SIZES = Sizes(num_inputs=5, num_symbols=7, num_horizons=2)


def names(entries):
    return [entry.name for entry in entries]


def network_of(entry):
    torch.manual_seed(0)
    return entry.build(entry.config(), SIZES).eval()


def batch(size=6, steps=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, steps, 5, generator=generator), torch.arange(size) % 8


@pytest.mark.parametrize("entry", model_entries(), ids=names(model_entries()))
def test_config_is_a_documented_frozen_dataclass(entry):
    assert is_dataclass(entry.config) and entry.config.__dataclass_params__.frozen
    assert entry.summary
    assert all(field.default is not None for field in fields(entry.config))


@pytest.mark.parametrize("entry", NETWORKS, ids=names(NETWORKS))
class TestNetworks:
    def test_shape(self, entry):
        inputs, symbol = batch()
        assert network_of(entry)(inputs, symbol, 1).shape == (6, 1, 2)
        if entry.supports_stretches:
            assert network_of(entry)(inputs, symbol, 11).shape == (6, 11, 2)

    def test_inputs_are_not_changed(self, entry):
        inputs, symbol = batch()
        kept, kept_symbol = inputs.clone(), symbol.clone()
        network_of(entry).train()(inputs, symbol, 1)
        assert torch.equal(inputs, kept) and torch.equal(symbol, kept_symbol)

    def test_a_prediction_does_not_depend_on_its_batch(self, entry):
        network = network_of(entry)
        inputs, symbol = batch()
        together = network(inputs, symbol, 1)
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        torch.testing.assert_close(
            network(inputs[order], symbol[order], 1), together[order], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(network(inputs[2:3], symbol[2:3], 1), together[2:3], atol=1e-5, rtol=0)

    def test_later_steps_do_not_reach_earlier_predictions(self, entry):
        if not entry.supports_stretches:
            pytest.skip("reads whole windows")
        network = network_of(entry)
        inputs, symbol = batch()
        before = network(inputs, symbol, 30)
        changed = inputs.clone()
        changed[:, 20:] = 9.0
        after = network(changed, symbol, 30)
        torch.testing.assert_close(after[:, :20], before[:, :20], atol=1e-6, rtol=0)
        assert not torch.allclose(after[:, 20:], before[:, 20:])

    def test_two_calls_agree_exactly(self, entry):
        network = network_of(entry)
        assert torch.equal(network(*batch(), 1), network(*batch(), 1))

    def test_hard_input_stays_finite(self, entry):
        network = network_of(entry)
        for inputs in (torch.zeros(2, 30, 5), torch.full((2, 30, 5), 5.0), torch.zeros(2, 1, 5)):
            assert torch.isfinite(network(inputs, torch.zeros(2, dtype=torch.long), 1)).all()

    def test_save_and_load_give_the_same_output(self, entry):
        network, other = network_of(entry), entry.build(entry.config(), SIZES).eval()
        other.load_state_dict(network.state_dict())
        assert torch.equal(network(*batch(), 1), other(*batch(), 1))


@pytest.mark.parametrize("entry", TABULAR, ids=names(TABULAR))
class TestTabular:
    def data(self, strength=1.0, rows=3000):
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(rows, 5)).astype(np.float32)
        noise = rng.normal(size=(rows, 2))
        target = (strength * inputs[:, [1]] * [1.0, -1.0] + noise).astype(np.float32)
        target[::7, 0] = np.nan
        return inputs, target

    def fitted(self, entry, strength=1.0):
        inputs, target = self.data(strength)
        stop = np.arange(2000, 3000)
        model = entry.build(entry.config(), 0)

        def judge(predict):
            return -float(np.nanmean((target[stop] - predict(inputs[stop])) ** 2))

        scores = model.fit(inputs, target, np.arange(2000), judge)
        return model, scores, inputs, target

    def test_learns_a_planted_signal(self, entry):
        model, scores, inputs, _ = self.fitted(entry)
        out = model.predict(inputs[2000:])
        assert out.shape == (1000, 2)
        assert np.corrcoef(out[:, 0], inputs[2000:, 1])[0, 1] > 0.9
        assert np.corrcoef(out[:, 1], inputs[2000:, 1])[0, 1] < -0.9
        assert len(scores) > 1

    def test_two_fits_agree_exactly(self, entry):
        first, *_ = self.fitted(entry)
        second, _, inputs, _ = self.fitted(entry)
        np.testing.assert_array_equal(first.predict(inputs), second.predict(inputs))

    def test_arrays_make_it_again(self, entry, tmp_path):
        model, _, inputs, _ = self.fitted(entry)
        save_arrays(tmp_path / "weights.safetensors", model.state())
        other = entry.build(entry.config(), 0)
        other.load(load_arrays(tmp_path / "weights.safetensors"))
        np.testing.assert_allclose(other.predict(inputs), model.predict(inputs), rtol=1e-12)

    def test_rows_that_may_not_teach_do_not(self, entry):
        inputs, target = self.data()
        poisoned = target.copy()
        poisoned[2000:] = 1e3
        stop = np.arange(2000, 3000)

        def judge(predict):
            return -float(np.nanmean((target[stop] - predict(inputs[stop])) ** 2))

        clean, dirty = entry.build(entry.config(), 0), entry.build(entry.config(), 0)
        clean.fit(inputs, target, np.arange(2000), judge)
        dirty.fit(inputs, poisoned, np.arange(2000), judge)
        np.testing.assert_array_equal(clean.predict(inputs), dirty.predict(inputs))

    def test_refit_keeps_what_was_chosen(self, entry):
        model, _, inputs, target = self.fitted(entry)
        before = model.predict(inputs)
        model.refit(inputs, target, np.arange(3000))
        after = model.predict(inputs)
        assert after.shape == before.shape and not np.array_equal(after, before)


@pytest.mark.parametrize("entry", NAIVE, ids=names(NAIVE))
class TestNaive:
    def test_history_cut_at_t_gives_the_same_forecast(self, entry):
        bars = make_bars((120, 90, 40, 6), holes=[(0, 50, 80)])
        full = entry.build(bars, 5)
        for cut in (30, 70, 110):
            keep = bars.session <= cut
            part = entry.build(bars.until(cut), 5)
            np.testing.assert_array_equal(part.score, full.score[keep])
            if full.y_hat is not None:
                np.testing.assert_array_equal(part.y_hat, full.y_hat[keep])

    def test_later_bars_do_not_matter(self, entry):
        bars = make_bars((120, 90))
        before = entry.build(bars, 5).score[bars.session <= 60]
        bars.close[bars.session > 60] *= 3.0
        np.testing.assert_array_equal(entry.build(bars, 5).score[bars.session <= 60], before)


def test_naive_rules_say_what_their_names_say():
    bars = make_bars((60, 40), market="us")
    log_close = np.log(bars.close)
    assert (model_entry("zero").build(bars, 5).y_hat == 0).all()
    assert (model_entry("always_up").build(bars, 5).y_hat > 0).all()
    past = log_close[59] - log_close[54]
    assert model_entry("reversal").build(bars, 5).score[59] == pytest.approx(-past)
    assert model_entry("persistence").build(bars, 5).y_hat[59] == pytest.approx(past)
    mean = (log_close[59] - log_close[0]) / 59 * 5
    assert model_entry("historical_mean").build(bars, 5).y_hat[59] == pytest.approx(mean)
    assert np.isnan(model_entry("reversal").build(bars, 5).score[:5]).all()


def linear(inputs, outputs):
    return inputs * outputs + outputs


def recurrent_formula(gates):
    def formula(c, sizes):
        layers = [sizes.num_inputs + c.stock_embedding_dim] + [c.hidden_size] * (c.num_layers - 1)
        cells = sum(gates * c.hidden_size * (width + c.hidden_size + 2) for width in layers)
        return cells + 2 * c.hidden_size + linear(c.hidden_size, sizes.num_horizons)

    return formula


def transformer_formula(c, sizes):
    width, inner = c.hidden_size, c.hidden_size * c.feedforward
    block = 4 * width**2 + 4 * width + linear(width, inner) + linear(inner, width) + 2 * 2 * width
    ends = linear(sizes.num_inputs + c.stock_embedding_dim, width) + linear(width, sizes.num_horizons)
    return ends + c.num_layers * block + 2 * width


def mlp_formula(c, sizes):
    widths = [sizes.num_inputs + c.stock_embedding_dim] + [c.hidden_size] * c.num_layers
    layers = sum(linear(a, b) + 2 * b for a, b in pairwise(widths))
    return layers + linear(c.hidden_size, sizes.num_horizons)


FORMULAS = {
    "lstm": recurrent_formula(4),
    "gru": recurrent_formula(3),
    "transformer": transformer_formula,
    "mlp": mlp_formula,
}


@pytest.mark.parametrize("entry", NETWORKS, ids=names(NETWORKS))
class TestUniversal:
    @pytest.mark.parametrize("layers", [1, 3])
    @pytest.mark.parametrize("width", [0, 8])
    def test_parameters_by_formula(self, entry, layers, width):
        config = entry.config(num_layers=layers, stock_embedding_dim=width)
        embedding = (SIZES.num_symbols + 1) * width + width  # a row each, and what all of them begin at
        network = entry.build(config, SIZES)
        counted = sum(parameter.numel() for parameter in network.parameters())
        assert FORMULAS[entry.name](config, SIZES) + embedding == counted

    def test_id_dropout_hides_symbols_while_training(self, entry):
        torch.manual_seed(0)
        network = entry.build(entry.config(id_dropout=0.5, dropout=0.0), SIZES).train()
        torch.nn.init.normal_(network.identity.embedding.weight)
        inputs, _ = batch()
        first = inputs[:1].expand(64, -1, -1)
        out = network(first, torch.full((64,), 3), 1)
        assert len(torch.unique(out.detach().round(decimals=4), dim=0)) == 2  # itself, or unknown

    def test_every_symbol_teaches_unknown_and_unknown_teaches_no_row(self, entry):
        network = entry.build(entry.config(id_dropout=0.0), SIZES).train()
        inputs, symbol = batch()
        for who, moves in ((symbol.clamp(min=1), True), (torch.zeros_like(symbol), False)):
            network.zero_grad(set_to_none=False)
            network(inputs, who, 1).square().sum().backward()
            table = network.identity.embedding.weight.grad
            assert network.identity.unknown.grad.abs().sum() > 0
            assert bool(table[1:].abs().sum() > 0) == moves and not table[0].any()

    def test_without_embedding_identity_does_not_matter(self, entry):
        network = entry.build(entry.config(stock_embedding_dim=0), SIZES).eval()
        inputs, symbol = batch()
        assert torch.equal(network(inputs, symbol, 1), network(inputs, symbol.flip(0), 1))

    def test_more_padding_changes_nothing_in_a_window(self, entry):
        if entry.name in ("lstm", "gru"):
            pytest.skip("a recurrent state walks through padding: a window has one length")
        inputs, symbol = batch()
        padded = torch.cat([torch.zeros(6, 9, 5), inputs], dim=1)
        network = network_of(entry)
        torch.testing.assert_close(network(padded, symbol, 1), network(inputs, symbol, 1), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("bad", [{"hidden_size": 0}, {"dropout": 1.0}, {"stock_embedding_dim": -1}])
    def test_bad_options(self, entry, bad):
        with pytest.raises(UsageError, match=next(iter(bad))):
            entry.config(**bad)


#: What each preset promises, in parameters beside the embedding; the inputs are those of tech48.
PROMISED = {"small": 0.4e6, "balanced": 4e6, "large": 8e6, "xl": 30e6}


@pytest.mark.parametrize("entry", NETWORKS, ids=names(NETWORKS))
def test_sizes_keep_their_promise(entry):
    assert list(entry.sizes) == [name for name in PROMISED if name in entry.sizes]
    for name, options in entry.sizes.items():
        config = entry.config(**options, stock_embedding_dim=8)
        assert FORMULAS[entry.name](config, Sizes(49, 3000, 1)) == pytest.approx(PROMISED[name], rel=0.15)


def test_transformer_width_must_suit_its_heads():
    with pytest.raises(UsageError, match="num_heads"):
        TransformerConfig(hidden_size=36, num_heads=8)


def test_lstm_starts_with_open_forget_gates():
    network = model_entry("lstm").build(LSTMConfig(hidden_size=3), SIZES)
    layer = network.recurrent[0]
    both = layer.bias_ih_l0 + layer.bias_hh_l0
    assert both.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_masked_loss_is_a_mean_over_known_labels():
    prediction = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    target = torch.tensor([[[0.0], [float("nan")]], [[1.0], [4.0]]])
    assert masked_mse(prediction, target, 3).item() == pytest.approx((1 + 4 + 0) / 3)


def test_unknown_model_names_the_known_ones():
    with pytest.raises(UsageError, match="lstm"):
        model_entry("lstmm")
