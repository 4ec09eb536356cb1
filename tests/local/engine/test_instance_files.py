"""Reading the files of a run while the orchestrator writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from st4sd_async.local.engine import instance_files as files


@pytest.mark.parametrize(
    ("on_disk", "in_status"),
    [
        ("plain", "plain"),
        (r"Stage 0 failed.\n1 job", "Stage 0 failed.\n1 job"),
        (r"Stage 0 failed.\\n1 job", r"Stage 0 failed.\n1 job"),
        (r"caf\xe9 \u03b1 \U0001f600", "caf\xe9 \u03b1 \U0001f600"),
        ("caf\xe9", "caf\xe9"),
        ("a\\", "a\\"),
    ],
)
def test_one_level_of_escapes_is_removed(on_disk: str, in_status: str) -> None:
    """Error descriptions have real line feeds at first, and escaped ones in the final status."""
    assert files.unescape(on_disk) == in_status


@pytest.mark.parametrize("text", ["", "experiment-state=run", "stages=[\n"])
def test_half_written_status_is_ignored(tmp_path: Path, text: str) -> None:
    """Reading a truncated file is no error."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "status.txt").write_text(text)

    assert files.read_status(tmp_path, None) is None
    assert files.read_outputs(tmp_path) is None


def test_output_of_a_killed_run_is_copied_from_its_shadow(tmp_path: Path) -> None:
    """The folder replaces the link in the instance directory."""
    shadow = tmp_path / "x.shadow" / "output"
    shadow.mkdir(parents=True)
    (shadow / "output.json").write_text('{"A": {"version": 1}}')
    instance = tmp_path / "x.instance"
    instance.mkdir()
    (instance / "output").symlink_to(shadow)

    files.copy_shadow(instance)

    assert files.read_outputs(instance) == {"A": {"version": "1"}}
    assert not (instance / "output").is_symlink()


@pytest.mark.parametrize("text", ["", "[]", "pid: 1\n", "pid: [\n"])
def test_half_written_description_of_a_run_is_ignored(tmp_path: Path, text: str) -> None:
    """Only a complete elaunch.yaml becomes the meta of a status."""
    (tmp_path / "elaunch.yaml").write_text(text)

    assert files.read_meta(tmp_path) is None
    assert files.read_meta(tmp_path / "none") is None


def test_variables_keep_their_types(tmp_path: Path) -> None:
    """A number that the package wrote as a number stays one; what users give is text. Stages have names."""
    (tmp_path / "elaunch.yaml").write_text(
        "pid: 1\nvariables:\n  global: {scale: 1, greeting: 'hi', delay: '3'}\n  stage: {0: {}}\nversion: 2.7.0\n"
    )

    assert files.read_meta(tmp_path) == {
        "pid": 1,
        "variables": {"global": {"scale": 1, "greeting": "hi", "delay": "3"}, "stage": {"0": {}}},
        "version": "2.7.0",
    }


def test_interface_is_that_of_the_run(tmp_path: Path) -> None:
    """It is in the definition that the orchestrator completes; {} if it has none, None if it cannot be read."""
    file = tmp_path / "conf" / "flowir_instance.yaml"
    assert files.read_interface(tmp_path) is None

    file.parent.mkdir()
    file.write_text("interface: {inputs: [a], outputFiles: [output/input-ids.json]}\ncomponents: []\n")
    assert files.read_interface(tmp_path) == {"inputs": ["a"], "outputFiles": ["output/input-ids.json"]}
    file.write_text("components: []\n")
    assert files.read_interface(tmp_path) == {}
    for text in ("", "interface: [\n", "interface: x\n"):
        file.write_text(text)
        assert files.read_interface(tmp_path) is None
