"""Finding the app that a worker runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept.cli.failure import UsageError
from kept.cli.main import main
from kept.cli.worker import BrokenModuleError, work_of


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that modules are imported from, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p != str(tmp_path)])
    monkeypatch.setattr("sys.modules", dict(__import__("sys").modules))
    return tmp_path


APP = """
class App:
    async def work(self, stop):
        assert not stop.is_set()
        print("worked")
app = App()
class Shop:
    main = app
number = 7
"""


@pytest.mark.parametrize("target", ["shop_a", "shop_a:app", "shop_a:Shop.main"])
def test_app_is_found_and_works(
    target: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module comes from the working directory; `:app` may be left out."""
    (project / "shop_a.py").write_text(APP)
    assert main(["worker", target]) == 0
    assert capsys.readouterr().out == "worked\n"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nowhere:app", "no module nowhere in "),
        ("nowhere.deep:app", "no module nowhere in "),
        ("shop_b:missing", "module shop_b has no missing"),
        ("shop_b:number", "shop_b:number is a int, not a kept.App"),
        (":app", "write MODULE:APP"),
        ("shop_b.py", "no module shop_b.py"),
        ("a-b:app", "write MODULE:APP"),
    ],
)
def test_wrong_targets_say_what_to_write(target: str, text: str, project: Path) -> None:
    """Each mistake has its own clear error."""
    (project / "shop_b.py").write_text(APP)
    with pytest.raises(UsageError, match=text):
        work_of(target)


def test_broken_module_shows_its_own_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where their code raises on import, they see where; a module that it misses is not ours."""
    (project / "broken_a.py").write_text("1 / 0\n")
    assert main(["worker", "broken_a:app"]) == 1
    complaint = capsys.readouterr().err
    assert "broken_a.py" in complaint
    assert "ZeroDivisionError" in complaint
    assert complaint.splitlines()[-1].startswith("kept: importing broken_a failed")
    (project / "broken_b.py").write_text("import not_installed_at_all\n")
    with pytest.raises(BrokenModuleError, match="not_installed_at_all"):
        work_of("broken_b:app")
