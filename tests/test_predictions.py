"""``predictions.csv`` survives a round trip, and nothing else is taken for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl_monai.predictions import read_predictions, relative, write_predictions
from medtl_monai.utils import UserError

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_predictions_survive_the_round_trip(tmp_path_factory, data):
    reserved = {"image", "patient", "part", "label", "predicted"}
    classes = data.draw(st.lists(words.filter(lambda w: w not in reserved), min_size=2, max_size=4, unique=True))
    n = data.draw(st.integers(0, 4))
    images, patients, parts, predicted = (data.draw(st.lists(words, min_size=n, max_size=n)) for _ in range(4))
    labels = data.draw(st.lists(st.integers(-1, len(classes) - 1), min_size=n, max_size=n))
    p = np.random.default_rng(n).dirichlet(np.full(len(classes), 0.1), n)
    path = tmp_path_factory.mktemp("table") / "predictions.csv"
    write_predictions(path, images, patients, parts, labels, predicted, p, classes)
    back = read_predictions(path)
    assert (back.images, back.patients, back.labels.tolist(), back.classes) == (images, patients, labels, classes)
    assert (back.parts, back.predicted) == (parts, predicted)
    np.testing.assert_allclose(back.probabilities, p, rtol=1e-9, atol=0)


def test_predictions_have_the_columns_of_the_contract(tmp_path):
    path = tmp_path / "predictions.csv"
    cases = (["1.png", "2.png"], ["p1", "p2"], ["val", ""], [1, -1], ["cancer", "benign"])
    write_predictions(path, *cases, [[0.25, 0.75], [1, 0]], ["benign", "cancer"])
    assert path.read_text().splitlines() == [
        "image,patient,part,label,predicted,benign,cancer",
        "1.png,p1,val,cancer,cancer,0.25,0.75",
        "2.png,p2,,,benign,1,0",
    ]


def test_predictions_are_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "p.csv", ["1", "2"], ["p"], ["", ""], [0, 1], ["a", "b"], np.eye(2), ["a", "b"])
    with pytest.raises(UserError, match="other than image, patient, part, label, predicted, found 'label'"):
        write_predictions(tmp_path / "p.csv", ["1"], ["p"], [""], [0], ["a"], [[1, 0]], ["a", "label"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expected columns image, patient, part, label, predicted"),
        ("image,patient,label,a,b\n", "Expected columns image, patient, part, label, predicted"),
        ("image,patient,part,label,predicted\n", "one per class"),
        ("image,patient,part,label,predicted,a,b\n1,p,val,c,a,0,1\n", "labels among"),
        ("image,patient,part,label,predicted,a,b\n1,p,val,a,a,1\n", "Expected 7 columns"),
        ("image,patient,part,label,predicted,a,b\n1,p,val,a,a,x,1\n", "Expected numbers"),
    ],
)
def test_a_table_that_holds_no_predictions_is_refused(tmp_path, text, match):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(UserError, match="found no file"):
        read_predictions(tmp_path / "other.csv")


def test_images_are_named_in_the_folder_of_the_data_however_that_is_given(tmp_path, monkeypatch):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for root in ("data", tmp_path / "data", "data/a/..", "link", tmp_path / "link"):
        assert relative(str(tmp_path / "data" / "a" / "1.png"), root) == "a/1.png"
    assert relative("data/a/1.png", "data") == relative("link/a/1.png", "link") == "a/1.png"
    assert relative(str(tmp_path / "data" / "a" / "1.png"), "data/a/1.png") == "1.png"  # of a single file
    assert relative("/elsewhere/1.png", "data") == "/elsewhere/1.png"
