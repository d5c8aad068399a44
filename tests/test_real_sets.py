"""The real sets give the cases, labels, patients, parts and pixels that the committed table says."""

import json

import pytest
import real_sets

WANT = json.loads(real_sets.TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", real_sets.SETS)
def test_labelled_sets(shared_data, name):
    assert real_sets.cases_of(shared_data / name, **real_sets.SETS[name]) == WANT[name]


@pytest.mark.parametrize("name", real_sets.BY_TABLE)
def test_an_index_goes_first_and_the_layout_tells_the_rest(shared_data, name):
    found = real_sets.cases_of(shared_data / name, pixels=False)
    assert found == WANT[f"{name}/index.csv"]
    assert {**WANT[name], **found} == WANT[name]


@pytest.mark.parametrize("name", real_sets.UNLABELLED)
def test_images_without_labels(shared_data, name):
    assert real_sets.files_of(shared_data / name) == WANT[name]
