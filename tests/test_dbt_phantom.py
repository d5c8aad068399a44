"""The tomosynthesis phantom: the tables and files of BCS-DBT, lesions where the boxes say, tissue as measured."""

import csv

import numpy as np
import pytest
from pydicom import dcmread

from medtl_monai.data import header, make_dbt_cohort, read_frame, read_series
from medtl_monai.data.phantoms import dbt
from medtl_monai.data.phantoms.dbt import BOXES, LABELS, PATHS, VIEWS

SMALL = {"patients": 4, "frames": 12, "size": (96, 80), "progress": False}


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_dbt_cohort(tmp_path_factory.mktemp("phantoms") / "dbt", **SMALL)


def test_a_seed_fixes_every_byte(cohort, tmp_path):
    make_dbt_cohort(tmp_path / "again", **SMALL)
    for path in cohort.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(cohort)).read_bytes()


def test_the_tables_are_those_of_the_real_set(cohort, shared_data):
    for name in (LABELS, BOXES):
        with (shared_data / "breast_bcsdbt_labels_csv" / name).open() as real, (cohort / name).open() as ours:
            assert real.readline().strip() == ours.readline().strip()


def test_every_patient_has_four_views_and_every_tumour_a_box_in_each_of_two(cohort):
    labels, paths, boxes = (rows(cohort / name) for name in (LABELS, PATHS, BOXES))
    keys = [(row["PatientID"], row["View"]) for row in labels]
    assert keys == [(f"DBT-P{i:05d}", view) for i in range(1, 5) for view in VIEWS]
    assert keys == [(row["PatientID"], row["View"]) for row in paths]
    assert all(sum(int(row[name]) for name in ("Normal", "Actionable", "Benign", "Cancer")) == 1 for row in labels)
    tumours = [key for key, row in zip(keys, labels, strict=True) if row["Benign"] == "1" or row["Cancer"] == "1"]
    assert [(row["PatientID"], row["View"]) for row in boxes] == tumours
    assert len(tumours) == 4
    assert {key[1][0] for key in tumours[:2]} in ({"l"}, {"r"})


def test_the_files_are_tomosynthesis_objects_with_functional_groups(cohort):
    for row in rows(cohort / PATHS)[:4]:
        about = header(cohort / row["descriptive_path"])
        assert (about.sop_class, about.modality) == ("Breast Tomosynthesis Image Storage", "MG")
        assert (about.frames, about.shape, about.bits_stored) == (12, (96, 80), 16)
        assert (about.laterality + about.view).lower() == row["View"]
        assert about.spacing == pytest.approx((209 / 96, 209 / 96))
        assert about.slice_spacing == pytest.approx(1.0)
        assert about.series in row["classic_path"]
        assert about.patient == row["PatientID"]
    assert dcmread(cohort / row["descriptive_path"]).pixel_array.shape == (12, 96, 80)


def test_the_chest_wall_is_where_the_view_says(cohort):
    for row in rows(cohort / PATHS):
        frame = read_frame(cohort / row["descriptive_path"], 6).astype(float)
        assert (frame[:, 0].sum() > frame[:, -1].sum()) == (row["View"][0] == "l")


def test_lesions_are_sharp_in_the_slice_of_their_box_and_blurred_away_from_it(cohort):
    paths = {(row["PatientID"], row["View"]): row["descriptive_path"] for row in rows(cohort / PATHS)}
    for row in rows(cohort / BOXES):
        number = int(row["PatientID"][-5:]) - 1
        plain = draw_again(number, row["View"])
        volume, _ = read_series(cohort / paths[row["PatientID"], row["View"]])
        x, y, width, height = (int(row[key]) for key in ("X", "Y", "Width", "Height"))
        added = volume.astype(float) - plain
        inside = added[:, y : y + height, x : x + width]
        assert inside.max(axis=(1, 2)).argmax() == int(row["Slice"])
        outside = np.delete(added[int(row["Slice"])], np.s_[y - 3 : y + height + 3], axis=0)
        assert np.abs(outside).max() < 0.1 * inside.max()


def draw_again(number, view):
    """The same view without its lesion: what the finding adds draws no random number of the tissue."""
    rng = np.random.default_rng([0, number])
    side = "lr"[int(rng.integers(2))]
    density, radius = rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.09)
    rng.integers(2**31)
    for name in VIEWS:
        if name[0] == side and dbt._STATES[number] != "Normal":
            dbt._lesion(dbt._STATES[number], name, radius, 0, (12, 96, 80), rng)
        volume = dbt.draw_breast((12, 96, 80), name, None, rng, density=density)
        if name == view:
            return volume.astype(float)
    raise AssertionError


def test_the_power_of_the_tissue_falls_with_the_third_power_of_the_frequency():
    field = dbt._tissue((8, 256, 256), np.random.default_rng(0))
    power = (np.abs(np.fft.fft2(field)) ** 2).mean(0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    band = (f > 0.02) & (f < 0.4)
    slope = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-3, abs=0.15)
