"""lab.toml: whatever is in it, the answer is settings or one clear refusal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ailab.cli import main
from ailab.settings import Settings, parse_size
from ailab.settings_file import SettingsError, default_document, load_settings, set_value

VALID = default_document(name="vision", language="zh", stack="tensorflow-2.9", port=8890)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def refusal(folder: Path, text: str | bytes) -> SettingsError:
    path = folder / "lab.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


def test_the_default_document_says_what_the_model_says(folder: Path) -> None:
    path = folder / "lab.toml"
    path.write_text(VALID, encoding="utf-8")
    loaded = load_settings(path)
    assert (loaded.lab.name, loaded.lab.language, loaded.access.port) == ("vision", "zh", 8890)
    assert loaded.model_copy(update={"lab": Settings().lab, "access": Settings().access}) == Settings()


@pytest.mark.parametrize(
    ("text", "line", "key", "remedy"),
    [
        ("[acess]\nport = 1", 1, "acess", "Did you mean access?"),
        ("[lab]\n[access]\n\nprot = 1", 4, "access.prot", "Did you mean port?"),
        ("port = 1", 1, "port", "[access] port"),
        ("[environment]\nstacks = ['./ours.toml']", 2, "environment.stacks", "before the first table"),
        ("stacks = './ours.toml'", 1, "stacks", "Write a list"),
        ("[access]\nport = '1'", 2, "access.port", "without quotes"),
        ("[access]\nport = 70000", 2, "access.port", "65535"),
        ("access = { port = 70000 }", 1, "access.port", "65535"),
        ("[resources]\n# much\nmemory = '8gg'", 3, "resources.memory", '"8g"'),
        ("[environment]\npackages = 'numpy'", 2, "environment.packages", "list"),
        ("[environment]\npackages = [\n 'numpy',\n 7]", 2, "environment.packages.1", "text in quotes"),
        ("[lab]\nruntime = 'dokcer'", 2, "lab.runtime", "process"),
        ("[lab]\nname = 'a'\nname = 'b'", 3, "", "key = value"),
        ("lab = 3", 1, "lab", "table"),
        ("[access]\nbind = 'everywhere'", 2, "access.bind", "0.0.0.0"),
        (b"[lab]\nname = '\xff'", 2, "", "UTF-8"),
        ("x = " + "[" * 20_000, 0, "", "oversized"),
        ("x = " + "1" * 9_000, 0, "", "oversized"),
    ],
)
def test_a_mistake_has_its_place_and_its_remedy(
    folder: Path, text: str | bytes, line: int, key: str, remedy: str
) -> None:
    error = refusal(folder, text)
    assert (error.line, error.key) == (line, key)
    assert remedy in error.remedy


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_edits_are_settings_or_a_refusal_that_changes_nothing(folder: Path, data: st.DataObject) -> None:
    """What loads is settings; what does not is refused by `up` itself, without a traceback and before anything else."""
    path = folder / "lab.toml"
    text = VALID
    for _edit in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.text(max_size=12)) + text[end:]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load_settings(path), Settings)
    except SettingsError as error:
        assert str(path) in error.message and error.remedy
        before = path.read_bytes()
        with redirect_stderr(io.StringIO()) as said:
            assert main.run(["--lab", str(folder), "up"]) == 2
        assert str(path) in said.getvalue() and "Traceback" not in said.getvalue()
        assert path.read_bytes() == before and list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("text", "size"), [("8g", 8 * 1024**3), ("1.5 GiB", 3 * 512 * 1024**2), (4096, 4096)])
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8gg", "g", "", "-1g", True, 0, "9" * 30, "1e3", None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_a_changed_value_keeps_the_comments_and_a_bad_one_changes_nothing(folder: Path) -> None:
    path = folder / "lab.toml"
    path.write_text("# mine\n[access]\nport = 1  # low\n")
    set_value(path, "access", "port", 8899)
    assert path.read_text() == "# mine\n[access]\nport = 8899  # low\n"
    with pytest.raises(SettingsError):
        set_value(path, "access", "port", 0)
    assert load_settings(path).access.port == 8899
