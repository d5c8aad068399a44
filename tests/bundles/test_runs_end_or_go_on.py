"""However a run is cut short, the same command goes on; whatever stands in its way, one sentence says so."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import same_weights, states

from medtl_monai.data import make_brain_cohort

QUICK = ("--image_size", 32, "--batch_size", 8, "--weights", "none")
ARGS = ("--epochs", 4, "--strategy", "finetune + ema", "--calibrate", "true")
LITTLE_ROOM = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def brain(make_cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "brain"
    images = make_brain_cohort(folder, patients=12, slices=(1, 1), size=48, progress=False)
    return make_cli("brain_mri_classification", images)


@pytest.fixture(scope="module")
def whole(brain, tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("run") / "whole"
    brain.train(output, *QUICK, *ARGS)
    return output


@pytest.fixture
def cut(brain, whole, tmp_path):
    """A run that was killed after its second epoch."""
    folder = tmp_path / "cut"
    brain.kill(folder, 2, *ARGS, *QUICK)
    return folder


@pytest.fixture
def unfinished(whole, tmp_path):
    """The files of a run that was killed while it wrote its report."""
    folder = shutil.copytree(whole, tmp_path / "cut")
    (folder / "metrics.json").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "state": "running"}))
    return folder


def same_results(one, two):
    """Assert that two runs left the same models, predictions and scores."""
    for name in ("best.pt", "last.pt"):
        same_weights(one / "checkpoints" / name, two / "checkpoints" / name)
    assert (one / "predictions.csv").read_text() == (two / "predictions.csv").read_text()
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    for found in scores:
        found.pop("run")
        for epoch in found["training"]["epochs"]:
            epoch.pop("seconds")
    assert scores[0] == scores[1]


def refused(done, message):
    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert re.search(message, errors[0]), errors[0]
    assert "Traceback" not in done.stdout + done.stderr


def start(brain, output, *args):
    command = brain.command("train", *QUICK, "--output_dir", output, *args)
    return subprocess.Popen(command, env=brain.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path):
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_the_same_command_goes_on_after_a_kill(brain, whole, cut):
    done = states(cut / "checkpoints" / "last.pt")["trainer"]["epoch"]
    (cut / "checkpoints" / ".last.pt.a1b2c3d4.pt").write_bytes(b"half")
    again = brain.train(cut, *QUICK, *ARGS)
    assert f"going on after epoch {done} of 4" in again.stdout
    same_results(cut, whole)
    assert not list(cut.rglob(".*"))  # neither lock nor unfinished files
    refused(brain("train", "--output_dir", cut, *QUICK, *ARGS), "already holds a run")


def test_the_same_command_writes_the_report_that_a_kill_prevented(brain, whole, unfinished):
    brain.train(unfinished, *QUICK, *ARGS)
    same_results(unfinished, whole)


def test_the_configuration_of_a_run_goes_on_with_it(brain, whole, unfinished):
    words = ["run", "--config_file", str(unfinished / "config.json"), "--output_dir", str(unfinished)]
    done = brain.warm("monai.bundle", words, unfinished, brain.env)
    assert done.returncode == 0, done.stdout + done.stderr
    same_results(unfinished, whole)


def test_a_run_that_was_killed_before_its_record_begins_again(brain, unfinished):
    shutil.rmtree(unfinished / "checkpoints")
    for path in unfinished.glob("*"):
        if path.is_file() and path.name != "config.json":
            path.unlink()
    brain.train(unfinished, *QUICK, *ARGS)
    assert json.loads((unfinished / "run.json").read_text())["state"] == "finished"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(brain, whole, unfinished):
    shutil.rmtree(unfinished / "checkpoints")
    refused(brain("train", "--output_dir", unfinished, *QUICK, *ARGS, "--seed", 1), "seed 1 instead of 0")
    brain.train(unfinished, *QUICK, *ARGS)
    same_results(unfinished, whole)


def test_a_training_that_ran_out_of_patience_is_not_gone_on_with(brain, tmp_path):
    args = (*QUICK, "--epochs", 6, "--patience", 1, "--lr", 1e-9)
    brain.train(tmp_path / "whole", *args)
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (cut / "metrics.json").unlink()
    assert states(cut / "checkpoints" / "last.pt")["trainer"]["epoch"] < 6
    brain.train(cut, *args)
    same_results(cut, tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:9000] + b"x" + b[9001:]])
def test_a_damaged_checkpoint_makes_way_for_the_one_before(brain, whole, unfinished, damage):
    last = unfinished / "checkpoints" / "last.pt"
    last.write_bytes(damage(last.read_bytes()))
    done = brain.train(unfinished, *QUICK, *ARGS)
    assert "It goes on from previous.pt" in done.stdout + done.stderr
    assert "going on after epoch 3 of 4" in done.stdout
    same_results(unfinished, whole)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        *(("run.json", text, "run.json is missing or damaged") for text in ("", "[]", "3", "{}", '{"data": 3}')),
        *(("config.json", text, "config.json is damaged") for text in ("", "[]", "{}")),
    ],
)
def test_a_damaged_record_is_not_taken_for_another_run(brain, unfinished, file, content, said):
    (unfinished / file).write_text(content)
    refused(brain("train", "--output_dir", unfinished, *QUICK, *ARGS), said)


@pytest.mark.parametrize(
    ("name", "value"),
    [("about", None), ("trainer", None), ("trainer", {"iteration": "4"}), ("checkpoints", [1]), ("optimizer", 3)],
)
def test_a_checkpoint_of_something_else_is_refused(brain, unfinished, name, value):
    for path in (unfinished / "checkpoints").glob("*.pt"):
        if path.name != "best.pt":
            content = states(path)
            assert name in content
            path.unlink()
            torch.save({**content, name: value}, path)
    refused(brain("train", "--output_dir", unfinished, *QUICK, *ARGS), "resume: .*last.pt ")


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_without_its_best_model_a_run_does_not_go_on(brain, unfinished, spoil):
    spoil(unfinished / "checkpoints" / "best.pt")
    refused(brain("train", "--output_dir", unfinished, *QUICK, *ARGS), "best.pt, the best model so far, is missing or")


def test_a_run_that_goes_on_elsewhere_takes_its_snapshots_along(brain, cut, tmp_path):
    (cut / "checkpoints" / "snapshot1.pt").write_bytes(b"of an earlier cycle")
    brain.train(tmp_path / "out", *QUICK, *ARGS, "--resume", cut / "checkpoints" / "last.pt")
    assert (tmp_path / "out" / "checkpoints" / "snapshot1.pt").read_bytes() == b"of an earlier cycle"


def test_files_of_the_user_are_neither_replaced_nor_removed(brain, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "split.csv").write_text("mine")
    refused(brain("train", "--output_dir", folder, *QUICK, *ARGS), "holds no run, but files that .* .split.csv.")
    assert [path.name for path in folder.iterdir()] == ["split.csv"]
    (folder / "split.csv").rename(folder / ".config.settings")
    brain.train(folder, *QUICK)
    assert (folder / ".config.settings").read_text() == "mine"


@pytest.mark.parametrize("place", ["config.json", "checkpoints", "figures"])
def test_something_else_in_the_place_of_a_file_is_said(brain, tmp_path, place):
    (tmp_path / "out").mkdir()
    if place == "config.json":
        (tmp_path / "out" / place).mkdir()
    else:
        (tmp_path / "out" / place).write_text("mine")
    refused(brain("train", "--output_dir", tmp_path / "out", *QUICK, "--epochs", 1), place)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--seed", 1), "seed 1 instead of 0"),
        (("--lr", 0.1), "lr 0.1 instead of"),
        (("--augmentation::rotate", 5), "augmentation::rotate 5 instead of"),
        (("--strategy", "finetune"), 'strategy "finetune" instead of "finetune \\+ ema"'),
        (("--epochs", 9), "epochs 9 instead of 4"),
        (("--val_fraction", 0.4), "val_fraction 0.4 instead of"),
    ],
)
def test_other_settings_are_refused_by_name(brain, unfinished, args, said):
    refused(brain("train", "--output_dir", unfinished, *QUICK, *ARGS, *args), said)


def test_what_changes_no_result_may_differ(brain, whole, unfinished, tmp_path):
    moved = shutil.copytree(brain.dataset, tmp_path / "moved")
    brain.train(unfinished, *QUICK, *ARGS, "--num_workers", 1, "--cache_dir", tmp_path / "c", "--dataset_dir", moved)
    same_results(unfinished, whole)


@pytest.mark.parametrize("change", ["a label", "a file"])
def test_other_data_is_refused(brain, unfinished, tmp_path, change):
    data = shutil.copytree(brain.dataset, tmp_path / "data")
    if change == "a label":
        table = data / "index.csv"
        rows = table.read_text().splitlines()
        labels = [row.split(",")[1] for row in rows[1:3]]
        assert labels[0] != labels[1]
        rows[1], rows[2] = (row.replace(f",{labels[i]}", f",{labels[1 - i]}") for i, row in enumerate(rows[1:3]))
        table.write_text("\n".join(rows) + "\n")
    else:
        image = next(path for path in sorted(data.rglob("*")) if path.suffix in (".gz", ".png", ".nii"))
        image.write_bytes(image.read_bytes() + b"\0")
    done = brain("train", "--output_dir", unfinished, *QUICK, *ARGS, "--dataset_dir", data)
    refused(done, "images, labels, patients or parts are not those of the run")


def test_a_folder_is_one_process_own(brain, tmp_path):
    process = start(brain, tmp_path / "out", "--epochs", 500)
    try:
        wait_for(tmp_path / "out" / "checkpoints" / "last.pt")
        refused(brain("train", "--output_dir", tmp_path / "out", *QUICK, "--epochs", 500), "another process is writing")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_ends_a_run_in_one_sentence(brain, tmp_path, number, status, name):
    process = start(brain, tmp_path / "out", "--epochs", 500)
    wait_for(tmp_path / "out" / "checkpoints" / "last.pt")
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    said = f"stopped by {name}: the same command with --output_dir {tmp_path / 'out'} goes on"
    assert said in errors.splitlines()
    assert "Traceback" not in output + errors
    assert states(tmp_path / "out" / "checkpoints" / "last.pt")["trainer"]["epoch"] >= 1


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_to_all_processes_ends_a_run_in_one_sentence(brain, tmp_path, number, status, name):
    """As a terminal sends Ctrl-C: also to the processes that load images."""
    command = brain.command("train", *QUICK, "--output_dir", tmp_path / "out", "--epochs", 500, "--num_workers", 1)
    process = subprocess.Popen(
        command, env=brain.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(tmp_path / "out" / "checkpoints" / "last.pt")
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert f"stopped by {name}" in errors
    assert "Traceback" not in output + errors


def test_a_full_disk_under_a_process_that_loads_images_is_told_in_one_sentence(brain, tmp_path):
    script = tmp_path / "little_room.py"
    script.write_text(LITTLE_ROOM)
    args = (*QUICK, "--epochs", 1, "--num_workers", 1, "--cache_dir", tmp_path / "cache", "--image_size", 64)
    done = brain("train", "--output_dir", tmp_path / "out", *args, launcher=(str(script), "12000"))
    refused(done, "cannot be written; .*make room, and the same command goes on")
    brain.train(tmp_path / "out", *args, "--image_size", 64)


@pytest.mark.parametrize("workflow", ["inference", "evaluate"])
def test_an_inference_or_evaluation_that_was_killed_begins_again(brain, whole, tmp_path, workflow):
    args = ("--output_dir", tmp_path / "out", "--checkpoint", whole / "checkpoints" / "best.pt")
    done = brain(workflow, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    predicted = (tmp_path / "out" / "predictions.csv").read_text()
    refused(brain(workflow, *args), "already holds a run")
    (tmp_path / "out" / "run.json").write_text(json.dumps({**record, "state": "running"}))
    done = brain(workflow, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "predictions.csv").read_text() == predicted


def test_a_full_disk_ends_a_run_in_one_sentence_and_it_goes_on_with_room(brain, whole, tmp_path):
    limit = (whole / "checkpoints" / "last.pt").stat().st_size // 2
    script = tmp_path / "little_room.py"
    script.write_text(LITTLE_ROOM)
    done = brain("train", "--output_dir", tmp_path / "out", *QUICK, *ARGS, launcher=(str(script), str(limit)))
    refused(done, "cannot be written; .*make room, and the same command goes on")
    assert not list((tmp_path / "out").rglob("*last.pt*"))
    brain.train(tmp_path / "out", *QUICK, *ARGS)
    same_results(tmp_path / "out", whole)


def test_a_run_that_has_no_room_says_so_before_it_trains(brain, tmp_path):
    code = (
        "import collections, runpy, shutil, sys; shutil.disk_usage = lambda path: "
        "collections.namedtuple('U', 'total used free')(9, 9, 1_000_000); "
        "runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)"
    )
    words = brain.command("train", "--output_dir", tmp_path / "out", *QUICK, *ARGS)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("sys.argv[1]", "'monai.bundle'"), *words[3:]],
        env=brain.env, text=True, capture_output=True, check=False,
    )  # fmt: skip
    refused(done, "has room for 1 MB, and the checkpoints of this run take .* MB: make room")
    assert not (tmp_path / "out" / "checkpoints" / "last.pt").exists()


def test_an_output_dir_that_cannot_be_is_refused(brain, tmp_path):
    (tmp_path / "file").write_text("something")
    done = brain("train", "--output_dir", tmp_path / "file", *QUICK, *ARGS)
    refused(done, "output_dir .*file cannot be written to")
    assert (tmp_path / "file").read_text() == "something"
    refused(brain("train", "--output_dir", tmp_path / "file" / "x", *QUICK, *ARGS), "cannot be written to")


@pytest.fixture
def spoilt(brain, tmp_path):
    """A copy of the data of which one image is damaged, and the image's name in it."""
    data = shutil.copytree(brain.dataset, tmp_path / "data")
    image = sorted(data.rglob("*.png"))[0]
    image.write_bytes(b"not a picture")
    return data, str(image.relative_to(data))


@pytest.mark.parametrize("workflow", ["inference", "evaluate"])
def test_one_bad_image_among_many_is_left_out_and_named(brain, whole, spoilt, tmp_path, workflow):
    data, name = spoilt
    model = ("--checkpoint", whole / "checkpoints" / "best.pt", "--dataset_dir", data)
    output = tmp_path / "out"
    done = brain(workflow, "--output_dir", output, *model)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert re.match(rf"error: 1 of 12 images cannot be read.*{name}.*failed.csv", done.stderr.splitlines()[-1])
    with (output / "failed.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "reason"]
    assert [row[0] for row in rows] == [name]
    assert rows[0][1]
    assert f"{name} ({rows[0][1]})" in (output / "run.log").read_text()
    with (output / "predictions.csv").open() as file:
        predicted = {row["image"] for row in csv.DictReader(file)}
    assert len(predicted) == 11
    assert name not in predicted
    refused(brain(workflow, "--output_dir", tmp_path / "strict", *model, "--strict", "true"), "cannot be read")


@pytest.mark.parametrize("workflow", ["inference", "evaluate"])
def test_where_no_image_can_be_read_there_is_no_result(brain, whole, tmp_path, workflow):
    data = shutil.copytree(brain.dataset, tmp_path / "data")
    for image in data.rglob("*.png"):
        image.write_bytes(b"not a picture")
    model = ("--checkpoint", whole / "checkpoints" / "best.pt", "--dataset_dir", data)
    refused(brain(workflow, "--output_dir", tmp_path / "out", *model), "12 of 12 images cannot be read")
    assert not (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.slow
def test_twenty_kills_at_any_moment(brain, whole, tmp_path):
    chance = random.Random(0)
    began = time.monotonic()
    brain.train(tmp_path / "timed", *QUICK, *ARGS, launcher=("-m",))
    seconds = time.monotonic() - began
    for number in range(20):
        output = tmp_path / str(number)
        for _ in range(2):  # the second time what goes on is killed
            process = start(brain, output, *ARGS)
            time.sleep(chance.uniform(0, seconds))
            process.kill()
            process.communicate()
        if (
            not (output / "metrics.json").exists()
            or json.loads((output / "run.json").read_text())["state"] != "finished"
        ):
            brain.train(output, *QUICK, *ARGS)
        same_results(output, whole)


@pytest.mark.slow
def test_ten_full_disks(brain, whole, tmp_path):
    script = tmp_path / "little_room.py"
    script.write_text(LITTLE_ROOM)
    sizes = sorted(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    chance = random.Random(0)
    for number in range(10):
        limit, output = chance.randint(500, sizes[-1] - 1), tmp_path / str(number)
        done = brain("train", "--output_dir", output, *QUICK, *ARGS, launcher=(str(script), str(limit)))
        refused(done, "cannot be written; .*make room")
        brain.train(output, *QUICK, *ARGS)
        same_results(output, whole)
        assert os.listdir(output)
