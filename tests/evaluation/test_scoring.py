"""The text that a model is evaluated on: its known and unknown characters, and which text it is."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.checkpoint.format import CorpusInfo, Meta, Progress
from charlm.config import EvalConfig
from charlm.config.files import parse_config
from charlm.data.corpus import TextIds, open_corpus
from charlm.data.vocab import UNKNOWN, Vocab
from charlm.errors import DataError
from charlm.evaluation import scoring
from charlm.evaluation.evaluate import evaluate
from charlm.evaluation.scoring import text_to_score
from tests.data.test_corpus import write
from tests.training.helpers import decided_model

KNOWN = "\nabé"
TEXTS = st.text("ab\néxyд", min_size=1, max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all examples of a property."""
    return tmp_path_factory.mktemp("scoring")


def meta_of(path: str, vocab: str = KNOWN, sha256: str = "", **data: Any) -> Meta:
    """The metadata of a model that was trained on the text at `path`."""
    return Meta(
        format=1,
        config=parse_config({"name": "run", "data": {"path": path} | data}),
        vocab=vocab,
        corpus=CorpusInfo(source=path, chars=1, sha256=sha256),
        parameters=1,
        progress=Progress(),
        log_sizes={},
        device="cpu",
        precision="fp32",
        threads=1,
        muon="fp32",
        versions={},
    )


def read(vocab: Vocab, ids: TextIds) -> str:
    return vocab.decode(ids[:])


def documents_of(vocab: Vocab, ids: TextIds) -> list[str]:
    assert ids.starts is not None
    assert (ids.starts[0], ids.starts[-1]) == (0, len(ids))
    return [vocab.decode(ids[a:b]) for a, b in itertools.pairwise(ids.starts.tolist())]


@settings(max_examples=25)
@given(TEXTS, st.sampled_from([1, 2, 5, 1 << 20]))
@example("a" * 7 + "x" + "b" * 7, 5)
def test_unknown_characters_are_left_out_with_skip_unknown_and_otherwise_rejected(
    folder: Path, text: str, chunk_chars: int
) -> None:
    path, vocab = write(folder, text), Vocab(KNOWN)
    known = "".join(char for char in text if char in KNOWN)
    unknown = [i for i, char in enumerate(text) if char not in KNOWN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_CHARS", chunk_chars)
        if len(known) < 2:
            with pytest.raises(DataError, match=f"the all part has {len(known)} characters and"):
                text_to_score(meta_of("-"), (path,), "all", True)
            return
        ids, count = text_to_score(meta_of("-"), (path,), "all", True)
        assert (read(vocab, ids), count) == (known, len(unknown))
        if not unknown:
            ids, count = text_to_score(meta_of("-"), (path,), "all", False)
            assert (read(vocab, ids), count) == (text, 0)
            return
        with pytest.raises(DataError) as caught:
            text_to_score(meta_of("-"), (path,), "all", False)
    with pytest.raises(DataError) as by_vocab:
        vocab.encode(text)
    assert str(caught.value) == f"{path}: {by_vocab.value}; on_unknown=skip leaves them out"
    where = f"({len(unknown)} of {len(text)} characters, the first at character {unknown[0]})"
    assert where in str(caught.value)


@pytest.mark.parametrize("kind", ["lstm", "mlp", "gpt"])
@pytest.mark.parametrize("protocol", ["stream", "windows"])
def test_the_score_is_that_of_the_text_without_unknown_characters(
    kind: str, protocol: str, tmp_path: Path
) -> None:
    text = "ab\nxéба" * 20
    model = decided_model(kind, len(KNOWN), context=8)
    config = EvalConfig.model_validate({"protocol": protocol, "n_windows": 20})
    paths = (
        write(tmp_path, text),
        write(tmp_path, text.translate(dict.fromkeys(map(ord, "xба"))), "b"),
    )
    one, other = (
        evaluate(model, text_to_score(meta_of("-"), (path,), "all", True)[0], config, seed=0)
        for path in paths
    )
    assert one == other
    assert one.chars > 50


def test_the_score_of_a_list_is_that_of_the_list_without_unknown_characters(tmp_path: Path) -> None:
    text = "ab\nxé\nбa\n" * 20
    model = decided_model("lstm", len(KNOWN), context=0)
    config = EvalConfig(protocol="items")
    scores = []
    for name in ("with", "without"):
        meta = meta_of("-", documents="lines")
        path = write(tmp_path, text, name)
        ids, _ = text_to_score(meta, (path,), "all", True)
        scores.append(evaluate(model, ids, config, seed=0))
        text = text.translate(dict.fromkeys(map(ord, "xб")))
    assert scores[0].nats == pytest.approx(scores[1].nats)
    assert scores[0].chars == scores[1].chars == len(text)


@settings(max_examples=25)
@given(st.lists(st.text("abxy", max_size=6), min_size=2, max_size=9), st.sampled_from([1, 2, 5]))
@example(["x", "aa", "y"], 1)
@example(["xxa", "ayy"], 5)
def test_every_document_of_a_list_keeps_its_known_characters(
    folder: Path, lines: list[str], chunk_chars: int
) -> None:
    path, vocab = write(folder, "\n".join([*lines, "xab"])), Vocab(KNOWN)
    meta = meta_of("-", documents="lines")
    corpus = open_corpus(meta.config.data.model_copy(update={"path": (path,)}))
    whole = documents_of(corpus.vocab, corpus.split("all"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_CHARS", chunk_chars)
        ids, count = text_to_score(meta, (path,), "all", True)
    known = ["".join(char for char in document if char in KNOWN) for document in whole]
    assert documents_of(vocab, ids) == known
    assert count == len("".join(whole)) - len("".join(known))


def test_the_position_of_the_first_unknown_character_is_that_in_the_split(tmp_path: Path) -> None:
    path = write(tmp_path, "x" * 5 + "a" * 4 + "x")
    with pytest.raises(DataError, match="1 of 5 characters, the first at character 4"):
        text_to_score(meta_of("-", val_fraction=0.5), (path,), "val", False)


@settings(max_examples=10)
@given(TEXTS, st.sampled_from([1, 5, 1 << 20]))
def test_a_limited_vocabulary_reads_all_unknown_characters_as_one(
    folder: Path, text: str, chunk_chars: int
) -> None:
    text += "ax"
    meta = meta_of("-", UNKNOWN + KNOWN, vocab_min_count=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "CHUNK_CHARS", chunk_chars)
        for skip in (False, True):
            ids, count = text_to_score(meta, (write(folder, text),), "all", skip)
            mapped = "".join(char if char in KNOWN else UNKNOWN for char in text)
            assert (read(meta.vocabulary, ids), count) == (mapped, 0)


def test_no_byte_is_unknown(tmp_path: Path) -> None:
    content = b"\xff\x00\xc3\xa9\n"
    meta = meta_of("-", Vocab.of_bytes().chars, unit="byte")
    ids, count = text_to_score(meta, (write(tmp_path, content),), "all", False)
    assert (ids[:].tolist(), count) == (list(content), 0)


# --- which text ------------------------------------------------------------------------------


def test_without_a_path_the_text_is_the_unchanged_text_the_model_was_trained_on(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "ababab\n\n\n\n")
    with pytest.raises(DataError, match="not the text this model was trained on") as caught:
        text_to_score(meta_of(path, sha256="0" * 64), (), "val", True)
    assert str(caught.value).endswith(f"data={path} split=val")
    sha256 = hashlib.sha256(b"ababab\n\n\n\n").hexdigest()
    meta = meta_of(path, sha256=sha256, val_fraction=0.4)
    for split, text in (("train", "ababab"), ("val", "\n\n\n\n"), ("all", "ababab\n\n\n\n")):
        ids, count = text_to_score(meta, (), split, False)  # type: ignore[arg-type]
        assert (read(meta.vocabulary, ids), count) == (text, 0)
    with pytest.raises(DataError, match=r"the test part has 0 characters.*another split"):
        text_to_score(meta, (), "test", False)


def test_a_path_replaces_the_training_validation_and_test_texts(tmp_path: Path) -> None:
    own = {"val_path": write(tmp_path, "bb", "val"), "test_path": write(tmp_path, "éé", "test")}
    meta = meta_of(write(tmp_path, "aa"), **own)
    paths = (write(tmp_path, "ab", "one"), write(tmp_path, "ba", "two"))
    ids, _ = text_to_score(meta, paths, "all", False)
    assert read(meta.vocabulary, ids) == "ab\nba"


def test_a_text_is_read_with_the_data_settings_of_the_model(tmp_path: Path) -> None:
    meta = meta_of("-", encoding="latin-1", newlines="lf", separator="")
    paths = (write(tmp_path, b"\xe9\r\n", "one"), write(tmp_path, b"a", "two"))
    ids, _ = text_to_score(meta, paths, "all", False)
    assert read(meta.vocabulary, ids) == "é\na"


def test_leaving_characters_out_leaves_no_file(tmp_path: Path, temporary: Path) -> None:
    ids, _ = text_to_score(meta_of("-"), (write(tmp_path, "abxab"),), "all", True)
    assert not list(temporary.iterdir())
    assert ids[:].tolist() == [1, 2, 1, 2]
