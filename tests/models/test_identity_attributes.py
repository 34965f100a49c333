"""Attributes beside the symbol: shapes, independence, id-dropout, and nothing changed where there are none."""

import pytest
import torch

from barcast.core.errors import UsageError
from barcast.models.identity import ATTRIBUTE_WIDTH, INITIAL_STD, SymbolIdentity
from barcast.models.network import Sizes
from barcast.models.registry import model_entries

NETWORKS = [entry for entry in model_entries() if entry.kind == "network"]
PLAIN = Sizes(num_inputs=5, num_symbols=7, num_horizons=2)
TOLD = Sizes(num_inputs=5, num_symbols=7, num_horizons=2, attributes=(3, 2))
STATIC = ("industry", "board")


def batch(columns=3):
    generator = torch.Generator().manual_seed(0)
    codes = torch.tensor([[1, 1, 1], [1, 2, 1], [0, 2, 1], [0, 0, 0], [7, 3, 2], [0, 3, 2]])
    inputs = torch.randn(1, 20, 5, generator=generator).expand(6, -1, -1)
    return inputs, codes[:, :columns] if columns > 1 else codes[:, 0]


@pytest.mark.parametrize("entry", NETWORKS, ids=[entry.name for entry in NETWORKS])
class TestEveryNetwork:
    def told(self, entry, **options):
        torch.manual_seed(0)
        return entry.build(entry.config(static=STATIC, **options), TOLD).eval()

    def test_a_symbol_nobody_has_seen_has_its_attributes(self, entry):
        network = self.told(entry)
        for table in network.identity.attribute_embeddings:
            torch.nn.init.normal_(table.weight)
        out = network(*batch(), 3)
        assert out.shape == (6, 3, 2)
        assert not torch.allclose(out[0], out[1])  # same symbol, other industry
        assert not torch.allclose(out[2], out[5])  # both unknown, other attributes
        assert not torch.allclose(out[2], out[3])

    def test_attributes_alone_make_an_identity(self, entry):
        network = self.told(entry, stock_embedding_dim=0)
        inputs, codes = batch()
        assert network.identity.embedding is None and network.identity.width == 2 * ATTRIBUTE_WIDTH
        other = codes.clone()
        other[:, 0] = 5
        assert torch.equal(network(inputs, codes, 1), network(inputs, other, 1))

    def test_without_attributes_there_are_weights_of_symbols_only(self, entry):
        torch.manual_seed(0)
        network = entry.build(entry.config(), PLAIN)
        names = {name for name in network.state_dict() if name.startswith("identity")}
        assert names == {"identity.embedding.weight", "identity.unknown"}
        inputs, symbol = batch(1)
        assert network(inputs, symbol, 1).shape == (6, 1, 2)

    def test_an_attribute_named_twice_is_refused(self, entry):
        with pytest.raises(UsageError, match="static"):
            entry.config(static=("board", "board"))


def identity(id_dropout):
    options = NETWORKS[0].config(static=STATIC, id_dropout=id_dropout, stock_embedding_dim=6)
    torch.manual_seed(0)
    return SymbolIdentity(options, TOLD)


def test_symbol_and_attributes_are_hidden_independently():
    room = identity(0.5).train()
    for column, table in enumerate([room.embedding, *room.attribute_embeddings]):
        table.weight.data[:] = 0
        table.weight.data[1:] = 2.0**column
    inputs = torch.zeros(8000, 1, 1)
    shown = room(inputs, torch.ones(8000, 3, dtype=torch.long))[:, 0, [1, 7, 11]] > 0
    assert torch.allclose(shown.float().mean(0), torch.full((3,), 0.5), atol=0.03)
    assert torch.corrcoef(shown.float().T).fill_diagonal_(0).abs().max() < 0.05
    assert (room.eval()(inputs, torch.ones(8000, 3, dtype=torch.long))[:, 0, [1, 7, 11]] > 0).all()


def test_fresh_vectors_have_the_deviation_that_movement_is_measured_by():
    sizes = Sizes(num_inputs=1, num_symbols=4000, num_horizons=1)
    room = SymbolIdentity(NETWORKS[0].config(stock_embedding_dim=8), sizes)
    assert room.embedding.weight.std().item() == pytest.approx(INITIAL_STD, rel=0.02)


def test_a_network_without_its_vocabularies_is_refused():
    with pytest.raises(AssertionError, match="vocabulary"):
        NETWORKS[0].build(NETWORKS[0].config(static=STATIC), PLAIN)
