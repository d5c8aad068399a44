"""The command line by what it prints, writes and returns."""

import json
import subprocess
import sys

import pytest
import torch

from medtl_monai.backbones import build
from medtl_monai.cli import main, network_rows
from medtl_monai.weights import SOURCES, read_weights

LITE0 = "efficientnet_lite0_imagenet"


@pytest.mark.parametrize("arguments", [["--help"], ["weights", "list"]])
def test_help_and_catalogue_need_no_torch(arguments):
    code = f"""
import sys
from medtl_monai.cli import main
try:
    main({arguments})
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_the_catalogue_says_what_is_here(capsys):
    assert main(["weights", "list"]) == 0
    rows = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert set(rows) == set(SOURCES)
    assert rows[LITE0] == "here"


def test_networks_are_listed_with_parameters_and_weights():
    name, parameters, size, weights = next(row for row in network_rows() if row[0] == "alexnet")
    assert (name, parameters, size, weights) == ("alexnet", 61100840, 224, ["alexnet_imagenet"])


def test_show_prints_the_entry_and_its_tensors(capsys):
    main(["weights", "show", LITE0])
    out = capsys.readouterr().out
    assert "Apache-2.0" in out
    assert "_conv_stem.weight  (32, 3, 3, 3)  float32" in out


def test_verify_finds_a_wrong_file(tmp_path, monkeypatch, capsys):
    assert main(["weights", "verify", LITE0]) == 0
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / SOURCES[LITE0].file).write_text("another")
    assert main(["weights", "verify"]) == 1
    assert "expected a SHA-256 beginning 57934424" in capsys.readouterr().out
    assert main(["weights", "verify", "alexnet_imagenet"]) == 1


@pytest.mark.parametrize("half", [False, True])
def test_adapt_writes_a_checkpoint_that_fits_and_its_report(half, tmp_path):
    output = tmp_path / "adapted.pt"
    arguments = ["--spatial_dims", "3", "--in_channels", "1", "--inflation", "centre", "--classes", "a", "b", "c"]
    with pytest.raises(SystemExit):
        main(["weights", "adapt", LITE0, str(output), "--inflation", "middle"])
    assert main(["weights", "adapt", LITE0, str(output), *arguments]) == 1  # its classes have no names
    arguments[-4:] = ["--num_classes", "3", "--option", "dropout", "0.5"]
    assert main(["weights", "adapt", LITE0, str(output), *arguments, *["--half"] * half]) == 0
    net = build("efficientnet_lite0", spatial_dims=3, in_channels=1, num_classes=3)
    net.load_state_dict(read_weights(output))
    assert (read_weights(output)["_conv_stem.weight"].dtype == torch.float16) is half
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["coverage"] == 1.0
    assert {entry["status"] for entry in report["entries"]} == {"loaded", "adapted", "missing"}


def test_a_mistake_is_one_sentence(capsys, tmp_path):
    assert main(["weights", "show", "resnet18_imagnet"]) == 1
    assert capsys.readouterr().err == (
        "error: there is neither a file nor a catalogue entry 'resnet18_imagnet': did you mean 'resnet18_imagenet'?\n"
    )
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    assert main(["weights", "adapt", str(tmp_path / "w.pt"), str(tmp_path / "o.pt")]) == 1
    assert "give --backbone" in capsys.readouterr().err


def test_adapt_shows_every_layer_on_request_and_takes_what_is_said_of_a_file(tmp_path, capsys):
    source = build("resnet10", spatial_dims=3, in_channels=1, num_classes=2, widen_factor=0.125)
    state = {f"q{key}": value for key, value in source.state_dict().items() if not key.startswith("layer4")}
    torch.save(state, tmp_path / "mine.pth")
    arguments = ["weights", "adapt", str(tmp_path / "mine.pth"), str(tmp_path / "out.pt"), "--backbone", "resnet10"]
    arguments += ["--spatial_dims", "3", "--in_channels", "1", "--option", "widen_factor", "0.125"]
    assert main(arguments) == 1
    assert "give a key map (--key_map)" in capsys.readouterr().err
    arguments += ["--key_map", "^q=", "--allow_missing", "layer4", "--axes", "ZYX", "--classes", "a", "b"]
    assert main([*arguments, "--source_classes", "B", "A"]) == 0
    assert "of the missing ones" in capsys.readouterr().out
    assert main([*arguments, "--source_classes", "B", "A", "--layers"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == set(source.state_dict())
    assert "axes ZYX to XYZ" in lines["conv1.weight"]
    assert "2 class rows mapped" in lines["fc.weight"]
    got = read_weights(tmp_path / "out.pt")
    assert torch.equal(got["fc.weight"], source.fc.weight.flip(0))
    assert torch.equal(got["conv1.weight"], source.conv1.weight.permute(0, 1, 4, 3, 2))
    assert main([*arguments, "--source_classes", "B", "A", "--axes", "DHW"]) == 1
    assert "axes must be X, Y and Z" in capsys.readouterr().err
