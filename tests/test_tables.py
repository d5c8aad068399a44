"""Tables of spreadsheets and scripts: what is understood, and what is refused in one sentence."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtl_monai.data.tables import has_columns, listed, read_table, truth
from medtl_monai.utils import UserError

cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).map(str.strip)


def read(folder, text, encoding="utf-8"):
    file = folder / "t.csv"
    file.write_bytes(text.encode(encoding))
    return read_table(file)


@pytest.mark.parametrize("begin", ["", "\ufeff", "sep=;\n", "\ufeffsep=;\r\n"])
def test_what_spreadsheets_write_before_a_table_is_no_row(tmp_path, begin):
    table = read(tmp_path, f"{begin}image;label\na;1\n;\n\nb;2\n")
    assert table.columns == ["image", "label"]
    assert [row["image"] for row in table.rows] == ["a", "b"]
    assert table.lines[-1] == 6 if "sep" in begin else 5
    assert has_columns(tmp_path / "t.csv", ["image", "label"])
    assert not has_columns(tmp_path / "t.csv", ["image", "patient"])


@given(st.lists(st.lists(cells, min_size=3, max_size=3).filter(any), min_size=1), st.sampled_from(",;\t"))
def test_every_table_that_csv_writes_is_read_as_it_was(tmp_path_factory, rows, delimiter):
    empty = ("nan", "<na>", "#n/a", "n/a")
    rows = [row for row in rows if any(cell and cell.lower() not in empty for cell in row)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["a", "b", "c"], *rows])
    if rows:
        found = read(tmp_path_factory.mktemp("t"), text.getvalue()).rows
        want = [["" if cell.lower() in empty else cell for cell in row] for row in rows]
        assert [list(row.values()) for row in found] == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,a\n1,2,3\n", "the column 'a' twice"),
        ("a,b\n1,2,3\n", "line 2 of the table t.csv has 3 cells and its first line 2 columns"),
        ("a,b\n1,2\0\n", "NUL"),
        ("a,b\n", "has no rows"),
        ("", "has no rows"),
        (f"a,b\n{'x' * 200_000},1\n", "line 2 of the table t.csv is no row .*field larger"),
        ("PK\3\4", "workbook of a spreadsheet"),
    ],
)
def test_other_tables_are_refused_in_one_sentence(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_that_is_no_utf_8_is_refused(tmp_path, encoding):
    with pytest.raises(UserError, match=r"t.csv is no UTF-8 text .*save it as CSV UTF-8"):
        read(tmp_path, "image,label\nä.png,ö\n", encoding)


@pytest.mark.parametrize("text", ["nan", "NaN", "<NA>", "#N/A", " nan "])
def test_what_pandas_writes_for_nothing_is_nothing(tmp_path, text):
    assert read(tmp_path, f"a,b\n{text},1\n").rows == [{"a": "", "b": "1"}]


def test_columns_are_lists_in_every_syntax():
    assert listed("a") == "a"
    for text in ("a,b", "['a','b']", '["a", "b"]', "('a', 'b')", ["a", "b"], ("a", "b")):
        assert listed(text) == ["a", "b"]
    assert listed("[a") == "[a"


@pytest.mark.parametrize(
    ("texts", "value"),
    [(("1", "1.0", "true", "TRUE", "yes"), 1.0), (("0", "0.0", "False", "no"), 0.0), (("-1", "-1.0", ""), None)],
)
def test_truth_is_written_in_many_ways(texts, value):
    assert [truth(text) for text in texts] == [value] * len(texts)
    with pytest.raises(KeyError):
        truth("2")


def test_a_wrong_column_gives_the_line_to_type(tmp_path):
    table = read(tmp_path, "Image name,label\nx,1\n")
    with pytest.raises(
        UserError, match="has no column 'image name' .did you mean 'Image name'.*--image_column 'Image name'"
    ):
        table.need({"image_column": "image name"})
