"""The pages say what the code does."""

import re
from pathlib import Path

import pytest

from barcast.features import feature_set, feature_sets, load_user_features, primitives

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "en" / "features.md", DOCS / "zh" / "features.md"]


@pytest.mark.parametrize("page", PAGES, ids=("en", "zh"))
def test_every_set_feature_and_primitive_is_described(page):
    text = page.read_text(encoding="utf-8")
    for feature in feature_set("tech48").features:
        formula = feature.formula.replace("|", "\N{DIVIDES}")
        assert f"| `{feature.name}` | {formula} | {feature.warmup} | {feature.source} |" in text
    for made in feature_sets():
        assert re.search(rf"\| `{made.name}` \| {len(made.features)} \|", text), made.name
    for name in primitives.__all__:
        assert re.search(rf"`{name}\b", text), name


@pytest.mark.parametrize("page", PAGES, ids=("en", "zh"))
def test_the_worked_example_works(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    example = re.search(r'```python\n("""Where.*?)```', text, re.DOTALL)[1]
    (tmp_path / "my_features.py").write_text(example, encoding="utf-8")
    (made,) = load_user_features([tmp_path / "my_features.py"])
    assert made.warmup.tolist() == [249, 249, 59, 98]
