"""The same sequences from every format, and an error with line and remedy for each table without them."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.data.corpus import Corpus, read_corpus
from seqgan_env.data.file_formats import read_records
from seqgan_env.games import text_game

IDS = [[3, 1, 4], [1, 5], [2]]
# Nothing that UTF-8 cannot write or that parts lines; quotes and commas, which CSV must escape, are frequent.
texts = st.lists(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff\0") | st.sampled_from("ab,\"' é漢"),
        max_size=12,
    ),
    max_size=6,
).map(lambda lines: [*lines, "x y"])


def same(first: Corpus, second: Corpus) -> bool:
    return (
        first.vocabulary == second.vocabulary
        and first.report == second.report
        and torch.equal(first.tokens, second.tokens)
        and torch.equal(first.lengths, second.lengths)
    )


def write_csv(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any], ascii_only: bool = True) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    return path


@settings(max_examples=60, deadline=None)
@given(lines=texts, tokenizer=st.sampled_from(["words", "characters"]), ascii_only=st.booleans())
def test_every_format_holds_the_same_corpus(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], tokenizer: str, ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    (folder / "a.txt").write_text("\n".join(lines), encoding="utf-8", newline="")
    tables = [
        write_csv(folder / "a.csv", [["id", "text"], *([number, line] for number, line in enumerate(lines))]),
        write_jsonl(folder / "a.jsonl", [{"id": 1, "text": line} for line in lines], ascii_only),
    ]
    expected = read_corpus(lines, tokenizer=tokenizer)
    assert same(read_corpus(folder / "a.txt", tokenizer=tokenizer), expected)
    for table in tables:
        assert same(read_corpus(table, tokenizer=tokenizer, column="text"), expected)
    assert same(read_corpus(({"text": line} for line in lines), tokenizer=tokenizer, column="text"), expected)
    assert not same(read_corpus([*lines, "z z"], tokenizer=tokenizer), expected)


def test_lists_of_tokens_are_sequences_too(tmp_path: Path) -> None:
    expected = read_corpus(["C O Cl", "O C"])
    for source in ([["C", "O", "Cl"], ["O", "C"]], [("C", "O", "Cl"), ("O", "C")]):
        assert same(read_corpus(source), expected)
    path = write_jsonl(tmp_path / "a.ndjson", [{"smiles": ["C", "O", "Cl"]}, {"smiles": ["O", "C"]}])
    assert same(read_corpus(path, column="smiles"), expected)


def test_ids_come_as_lines_lists_arrays_and_tensors(tmp_path: Path) -> None:
    lines = [" ".join(map(str, row)) for row in IDS]
    expected = read_corpus(lines, tokenizer="integers")
    sources: list[Any] = [
        IDS,
        map(tuple, IDS),
        [np.array(row, dtype=np.int32) for row in IDS],
        [torch.tensor(row) for row in IDS],
        [list(np.array(row)) for row in IDS],
    ]
    for source in sources:
        assert same(read_corpus(source, tokenizer="integers"), expected)
    path = write_jsonl(tmp_path / "a.jsonl", [{"ids": row} for row in IDS])
    assert same(read_corpus(path, tokenizer="integers", column="ids"), expected)
    assert same(read_corpus([{"ids": row} for row in IDS], tokenizer="integers", column="ids"), expected)


def test_quoted_fields_may_hold_line_ends_and_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,n\r\n"a ""b""\nc, d",1\r\n\r\né,2\r\n'.encode())
    corpus = read_corpus(path, column="text")
    assert [corpus.vocabulary.decode(row) for row in corpus.tokens] == ['a "b" c, d', "é"]
    assert (corpus.report.lines, corpus.report.empty) == (3, 1)


def test_the_suffix_decides_the_format_unless_one_is_given(tmp_path: Path) -> None:
    path = tmp_path / "table.dat"
    path.write_text("text\na b\n")
    assert read_corpus(path, format="csv", column="text").report.lines == 1
    assert read_corpus(path).report.lines == 2
    upper = path.rename(tmp_path / "TABLE.CSV")
    assert read_corpus(upper, column="text").report.lines == 1
    assert read_corpus(upper, format="text").report.lines == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,body\n1,a b\n", r"a\.csv, line 1: no column 'text'\. There are 'id', 'body'\."),
        ("a.csv", "text,text\na,b\n", r"line 1: more than one column 'text'\. There are 'text', 'text'"),
        ("a.csv", "", r"a\.csv is empty\. Expected CSV with a header"),
        ("a.csv", "id,text\n1,a b\n2,a, b\n", r"line 3: 3 fields, but the header has 2\. Put a field that holds commas in"),
        ("a.csv", 'id,text\n1,"a\nb"\n2\n', r"line 4: 1 fields, but the header has 2"),
        ("a.csv", 'id,text\n1,"a b\n', r"line 2: not CSV: unexpected end of data"),
        ("a.csv", "id,text\n", r"a\.csv: no sequences in 0 lines"),
        ("a.jsonl", '{"text": "a b"}\n{"body": 1, "n": 2}\n', r"line 2: no column 'text'\. There are 'body', 'n'\."),
        ("a.jsonl", '{"text": "a b"}\n\n{"text": \n', r"line 3: not JSON: Expecting value.* Expected one object per line"),
        ("a.jsonl", '["a"]\n', r"line 1: expected an object such as \{\"text\": \"a line\"\}, got list: \['a'\]"),
        ("a.jsonl", '{"text": "a \\ud800"}\n', r"line 1: U\+D800 is half of a surrogate pair.* cannot stand alone in text"),
        (
            "a.txt",
            "a b\n",
            r"column='text', but .*a\.txt is read as plain text, which has no columns\. For a table pass format='csv'",
        ),
    ],
)
def test_a_table_without_the_sequences_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_corpus(path, column="text")


@pytest.mark.parametrize("value", ["null", "7", '{"a": 1}', "true"])
def test_a_field_of_another_kind_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a b"}}\n{{"text": {value}}}\n')
    with pytest.raises(TypeError, match=r"a\.jsonl, line 2 must be a str, or a list of tokens or of ids, got"):
        read_corpus(path, column="text")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([1, 2.5], r"Line 2 of the given lines: a list must be all tokens .* but it holds float: 2\.5"),
        ([1, True], "holds bool: True"),
        ([1, None], "holds NoneType: None"),
        (np.array([[1, 2]]), r"holds list: \[1, 2\]"),
        (5, "must be a str, or a list of tokens or of ids, got int: 5"),
    ],
)
def test_items_other_than_sequences_are_refused(item: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_corpus([[0, 1], item], tokenizer="integers")


def test_a_table_needs_a_column(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"line 1: name the column that holds the sequences with column=\. There are 'id', 'text'\."
    ):
        read_corpus(write_csv(tmp_path / "a.csv", [["id", "text"], ["1", "a b"]]))
    with pytest.raises(ValueError, match=r"name the column that holds the sequences"):
        read_corpus(write_jsonl(tmp_path / "a.jsonl", [{"text": "a b"}]))
    with pytest.raises(TypeError, match="Line 1 of the given lines must be a mapping with 'text' in it, got str: a b"):
        read_corpus(["a b"], column="text")
    with pytest.raises(ValueError, match=r"Line 1 of the given lines: no column 'text'\. There are 'body'\."):
        read_corpus([{"body": "a b"}], column="text")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_tables_are_utf8_files_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"text\ncaf\xe9\n")
    if name == "a.jsonl":
        path.write_bytes(b'{"text": "ab"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match="is not UTF-8: line 2 has 0xe9 at byte"):
        read_corpus(path, column="text")
    path.write_bytes(b"PK\x03\0\0")
    with pytest.raises(ValueError, match="is binary, or text in UTF-16: line 1 has a NUL at byte 3"):
        read_corpus(path, column="text")
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_corpus(path, column="text")


# Tables from Python


class Frame:
    """The parts of pandas and polars used here: columns by name, and iteration over names."""

    def __init__(self, **columns: Any) -> None:
        self.columns = list(columns)
        self._columns = columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


class ArrowColumn:
    """A column of pyarrow, whose items are pyarrow's own objects."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def to_pylist(self) -> list[Any]:
        return self._values


class ArrowTable:
    """A table of pyarrow, whose `columns` are the columns themselves."""

    column_names = ("id", "text")
    columns = (ArrowColumn([1, 2]), ArrowColumn(["a b", "b"]))

    def __getitem__(self, name: str) -> ArrowColumn:
        return self.columns[self.column_names.index(name)]


TABLES: dict[str, Any] = {
    "mapping": {"id": [1, 2], "text": ["a b", "b"]},
    "mapping of tuples": {"id": (1, 2), "text": (("a", "b"), ("b",))},
    "frame": Frame(id=[1, 2], text=["a b", "b"]),
    "arrow": ArrowTable(),
    "structured array": np.array([(1, "a b"), (2, "b")], dtype=[("id", "i8"), ("text", "U9")]),
    "rows": [{"id": 1, "text": "a b"}, {"id": 2, "text": "b"}],
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
def test_a_table_gives_the_column_that_is_asked_for(table: Any, tokenizer: str) -> None:
    if tokenizer == "bpe" and isinstance(table, dict) and isinstance(table["text"], tuple):
        pytest.skip("lists of tokens are for words")
    assert same(read_corpus(table, column="text", tokenizer=tokenizer), read_corpus(["a b", "b"], tokenizer=tokenizer))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_without_a_column_is_refused(table: Any) -> None:
    message = r"The given lines.*: name the column that holds the sequences with column=\. There are 'id', 'text'\."
    for read in (read_corpus, text_game):
        with pytest.raises(ValueError, match=message):
            read(table)
    with pytest.raises(ValueError, match=r"no column 'body'\. There are 'id', 'text'\."):
        read_corpus(table, column="body")


def test_a_single_row_is_refused() -> None:
    with pytest.raises(TypeError, match=r"column 'text' is one string, str: a b\. Wrap a single row in a list"):
        read_corpus({"text": "a b"}, column="text")


def test_a_column_may_be_named_by_a_number() -> None:
    for table in ({7: ["a b", "b"]}, [{7: "a b"}, {7: "b"}]):
        assert same(read_corpus(table, column="7"), read_corpus(["a b", "b"]))


def test_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 2], "text": ["a b", "b"]})
    assert same(read_corpus(frame, column="text"), read_corpus(["a b", "b"]))
    assert same(read_corpus(frame["text"]), read_corpus(["a b", "b"]))
    with pytest.raises(ValueError, match=r"name the column .* There are 'id', 'text'\."):
        text_game(frame)
    frame.loc[1, "text"] = None
    with pytest.raises(TypeError, match="Line 2 of the given lines must be a str"):
        read_corpus(frame, column="text")


# What the libraries underneath limit


def test_a_field_of_csv_may_be_long(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = write_csv(tmp_path / "a.csv", [["id", "text"], [1, "ab" * 80_000], [2, "b a"]])
    corpus = read_corpus(path, column="text", tokenizer="characters", sequence_length=3, too_long="truncate")
    assert [corpus.vocabulary.decode(row) for row in corpus.tokens] == ["aba", "b a"]
    assert csv.field_size_limit() == before
    path.write_text(f'id,text\n1,"{"a" * 200_000}\n')
    with pytest.raises(ValueError, match=r"line 2: not CSV: unexpected end of data"):
        read_corpus(path, column="text")
    assert csv.field_size_limit() == before


def test_the_limit_is_restored_between_rows_and_threads(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = write_csv(tmp_path / "a.csv", [["text"], *([f"a{number} b " + "c" * 140_000] for number in range(40))])
    for _ in read_records(path, None, "text"):
        assert csv.field_size_limit() == before
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: sum(1 for _ in read_records(path, None, "text")), range(8)))
    assert read == [40] * 8
    assert csv.field_size_limit() == before


def test_numbers_too_long_for_python_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"n": {"7" * 5000}, "text": "a b"}}\n{{"n": -{"7" * 5000}, "text": "b"}}\n')
    assert same(read_corpus(path, column="text"), read_corpus(["a b", "b"]))
    path.write_text(f'{{"ids": [0, 1]}}\n{{"ids": [1, {"7" * 5000}]}}\n')
    with pytest.raises(ValueError, match="line 2: the id of more than 20 digits is beyond the vocabulary"):
        read_corpus(path, column="ids", tokenizer="integers")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a b", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(ValueError, match="line 1: nested too deeply to read"):
        read_corpus(path, column="text")


def test_half_a_surrogate_is_refused_in_lists_too() -> None:
    for item in ("b \udc80", ["b", "\udc80"]):
        with pytest.raises(ValueError, match=r"Line 2 of the given lines: U\+DC80 is half of a surrogate pair"):
            read_corpus(["a b", item])
