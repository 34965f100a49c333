"""The pages stay true: two languages side by side, links that resolve, commands that parse, tables like the code."""

import ast
import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import barcast
from barcast.cli.app import app
from barcast.cli.copied import translate
from barcast.core.workspace import Workspace
from barcast.fleet.trees.presets import PRESETS
from barcast.models.registry import model_entry
from barcast.pipeline.market import quality_policy
from barcast.pipeline.settings import DataConfig, resolve
from barcast.sources.headers import ROLES, read_header
from barcast.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
NAMES = sorted({path.name for language in ("en", "zh") for path in (DOCS / language).glob("*.md")})
FILES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PAIRS = [*((DOCS / "en" / name, DOCS / "zh" / name) for name in NAMES), READMES]
COMMAND = re.compile(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(barcast [^\n]*)")


def label(value):
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else None


def prose_and_code(path):
    """Lines outside and inside of code blocks, fenced or indented by four blanks."""
    prose, code, fence = [], [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fence = None if fence else line
        elif fence is not None or line.startswith("    "):
            code.append(line.strip())
        else:
            prose.append(line)
    return prose, code


def command_lines(path):
    """Commands of the code blocks, without their comments."""
    found = [COMMAND.match(line) for line in prose_and_code(path)[1]]
    return [" ".join(shlex.split(match[1], comments=True)) for match in found if match]


def mentioned(path):
    """Commands within a sentence, which may leave out what they need."""
    text = "\n".join(prose_and_code(path)[0])
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [match[1] for match in map(COMMAND.fullmatch, spans) if match]


def headings(path):
    return [line for line in prose_and_code(path)[0] if re.match(r"#+ ", line)]


def marked(path, marker):
    """Cells of the table between two markers, without its head; nothing where the page has none."""
    parts = path.read_text(encoding="utf-8").split(f"<!-- {marker}:start -->")
    if len(parts) == 1:
        return []
    lines = [
        line for line in parts[1].split(f"<!-- {marker}:end -->")[0].splitlines() if line.startswith("|")
    ]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


# --- two languages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: label(pair[0]))
def test_both_languages_have_the_page_with_the_same_sections_and_commands(pair):
    for path in pair:
        assert path.is_file(), f"{label(path)} is missing"
    levels = [[line.split(" ")[0] for line in headings(path)] for path in pair]
    assert levels[0] == levels[1], "sections differ"
    assert command_lines(pair[0]) == command_lines(pair[1])
    first_cells = [
        [row[0] for marker in ("headers", "errors", "failures") for row in marked(path, marker)]
        for path in pair
    ]
    assert [cell.replace("、", ", ") for cell in first_cells[1]] == first_cells[0]


def test_both_readmes_list_every_page_and_have_the_table_in_the_same_place():
    texts = [path.read_text(encoding="utf-8") for path in READMES]
    for text, language in zip(texts, ("en", "zh"), strict=True):
        listed = re.findall(rf"^\| \[[^\]]+\]\(docs/{language}/([^)]+)\)", text, re.M)
        assert set(NAMES) <= set(listed), "pages that no README leads to"
        assert text.count("<!-- honest-table -->") == 1
    orders = [re.findall(r"^\| \[[^\]]+\]\(docs/\w\w/([^)]+)\)", text, re.M) for text in texts]
    assert orders[0] == orders[1]
    places = [text.split("<!-- honest-table -->")[0].count("\n## ") for text in texts]
    assert places[0] == places[1]
    images = [re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text) for text in texts]
    assert images[0] == [name.replace(".zh-CN", "") for name in images[1]]
    assert all((ROOT / name).is_file() for names in images for name in names)


# --- links -------------------------------------------------------------------------------------------------


def anchors(path):
    """What the sections of a page are called in links: lower case, blanks to hyphens, no punctuation."""
    found = set()
    for line in headings(path):
        title = re.sub(r"[`*]", "", line.lstrip("# ").strip().lower())
        found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_internal_link_resolves(path):
    text = re.sub(r"`[^`\n]*`", "", "\n".join(prose_and_code(path)[0]))
    dangling = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        missing_anchor = anchor and there.suffix == ".md" and there.is_file() and anchor not in anchors(there)
        if not there.exists() or not there.is_relative_to(ROOT) or missing_anchor:
            dangling.append(target)
    assert not dangling


# --- commands ----------------------------------------------------------------------------------------------


def resolve_command(words):
    """Walk down to the command that ``words`` call; return it, its name and what is left."""
    command, name = typer.main.get_command(app), "barcast"
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"`{name}` has no command `{words[0]}`"
        name, command, words = f"{name} {words[0]}", command.commands[words[0]], words[1:]
    return command, name, words


def check_flags(line):
    """Every flag of the line exists; return the command and its arguments."""
    words, _ = translate(shlex.split(line, comments=True)[1:])
    stop = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")), len(words))
    command, name, rest = resolve_command(words[:stop])
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    known |= {"-h", "--help", "--debug"}
    for word in rest:
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            assert word.partition("=")[0] in known, f"`{name}` has no option {word}: {line}"
    return command, name, [word for word in rest if word != "--debug"]


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_command_of_a_code_block_parses(path):
    for line in command_lines(path):
        command, name, rest = check_flags(line)
        assert not hasattr(command, "commands"), f"{line}: `{name}` wants a command"
        try:
            command.make_context(name, list(rest))
        except Exception as error:
            pytest.fail(f"{line}: {type(error).__name__} {error}")


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_command_within_a_sentence_exists(path):
    for line in mentioned(path):
        check_flags(line)


# --- files and code -----------------------------------------------------------------------------------------


def blocks(path, kind):
    """Bodies of the fenced blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_python_and_toml_blocks_are_what_they_say(path):
    for block in blocks(path, "python"):
        ast.parse(block)
    for block in blocks(path, "toml"):
        tomllib.loads(block)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_settings_shown_are_settings(language, tmp_path):
    (block,) = blocks(DOCS / language / "training.md", "toml")
    (tmp_path / "barcast.toml").write_text(block, encoding="utf-8")
    config = resolve(Workspace(tmp_path), "lstm", {"epochs": 1})
    assert (config.seed, config.data.horizons, config.options.hidden_size) == (1, (1, 5), 128)
    assert (config.train.epochs, config.train.checkpoint_seconds) == (1, 60.0)
    assert quality_policy(Workspace(tmp_path), {}).choices["zero_volume"] == "mask"


# --- tables ------------------------------------------------------------------------------------------------


def shown(default):
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_of_presets_is_that_of_the_code(language):
    table = marked(DOCS / language / "fleet.md", "fleet-presets")
    assert [re.search(r"`(\w+)`", row[0])[1] for row in table] == list(PRESETS)
    for (_, _, *cells), preset in zip(table, PRESETS.values(), strict=True):
        forest, xgboost, lightgbm = ([float(each) for each in re.findall(r"[\d.]+", cell)] for cell in cells)
        assert forest[:2] == [preset.forest.num_trees, preset.forest.max_depth]
        assert xgboost[:2] == [preset.xgboost.num_rounds, preset.xgboost.max_depth] * (
            "xgboost" in preset.members
        )
        assert lightgbm[:1] == [preset.lightgbm.num_rounds] * ("lightgbm" in preset.members)
        assert not lightgbm or preset.lightgbm.num_leaves in lightgbm


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    "section", ["data", "train", "lstm", "gru", "transformer", "mlp", "lightgbm", "ridge"]
)
def test_the_tables_of_options_are_those_of_the_code(language, section):
    config = {"data": DataConfig, "train": TrainConfig}.get(section) or model_entry(section).config
    table = marked(DOCS / language / "training.md", f"options:{section}")
    fields = dataclasses.fields(config)
    assert [row[0] for row in table] == [f"`{field.name}`" for field in fields]
    train = typer.main.get_command(app).commands["train"]
    flags = {option.name: option.opts[0] for option in train.params if option.opts[0].startswith("--")}
    for field, (_, default, flag, meaning) in zip(fields, table, strict=True):
        if field.default is not dataclasses.MISSING and field.default not in ((), ""):
            assert default == shown(field.default), field.name
        assert flag == (
            f"`{flags[field.name]}`" if field.name in flags else {"en": "file", "zh": "文件"}[language]
        )
        assert meaning


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_headers_listed_are_read_as_listed(language):
    table = marked(DOCS / language / "data.md", "headers")
    assert [row[0] for row in table] == [f"`{role}`" for role in ROLES]
    for role, names in table:
        for name in names.split(", "):
            assert read_header([name]).roles == {role.strip("`"): name}


def messages():
    """Every text in the package, with … for what is filled in."""
    texts = []
    for path in (ROOT / "src" / "barcast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
    return "\n".join(texts).replace("`", "")


def test_the_messages_explained_are_messages_of_the_program():
    known = messages()
    for name in ("data.md", "training.md"):
        cells = [row[0] for marker in ("errors", "failures") for row in marked(DOCS / "en" / name, marker)]
        assert len(cells) > 15
        for cell in cells:
            for text in re.findall(r"`([^`]+)`", cell):
                assert text in known, f"{name}: nothing says `{text}`"


@pytest.mark.parametrize(
    ("language", "first"), [("en", "Every command is a verb:"), ("zh", "每条命令都有同样的函数：")]
)
def test_the_page_lists_every_verb(language, first):
    text = (DOCS / language / "training.md").read_text(encoding="utf-8")
    listed = re.match(r"(?:\s*`\w+`[、, ]?)+", text.split(first)[1])[0]
    verbs = [name for name in barcast.__all__ if name[0].islower()]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(verbs)
