"""Vector index: the nearest vectors by cosine, exactly, whichever library finds them."""

import sys

import numpy as np
import pytest

from dragoman.errors import ConfigError
from dragoman.text import vector_index
from dragoman.text.vector_index import VectorIndex


def unit(rows, width=16, seed=1):
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=["as installed", "without the library"])
def library(request, monkeypatch):
    if request.param == "without the library":
        monkeypatch.setitem(sys.modules, "faiss", None)


def test_search_finds_what_all_products_show(library, monkeypatch):
    monkeypatch.setattr(vector_index, "ROWS", 300)
    vectors, queries = unit(1000), unit(300, seed=2)
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    for query, (rows, cosines) in zip(products, VectorIndex(vectors).nearest(queries, 5), strict=True):
        assert rows.tolist() == np.argsort(-query)[:5].tolist()
        assert cosines == pytest.approx(query[rows], abs=1e-6)


def test_answers_are_the_same_with_and_without_the_library(monkeypatch):
    vectors, queries = np.concatenate([unit(200), unit(200), unit(3, seed=3)]), unit(20)  # each of the first twice
    found = VectorIndex(vectors).nearest(queries, 7)
    monkeypatch.setitem(sys.modules, "faiss", None)
    without = VectorIndex(vectors).nearest(queries, 7)
    for one, other in zip(found, without, strict=True):
        assert one[0].tolist() == other[0].tolist()
        assert one[1].tolist() == other[1].tolist()


def test_of_equal_vectors_the_earlier_comes_first(library):
    (rows, cosines), *_ = VectorIndex(unit(1).repeat(6, axis=0)).nearest(unit(1), 3)
    assert rows.tolist() == [0, 1, 2]
    assert cosines == pytest.approx([1, 1, 1])


def test_a_query_has_the_same_answer_alone(library):
    index, queries = VectorIndex(unit(500)), unit(40, seed=2)
    together = index.nearest(queries, 4)
    for i, (rows, cosines) in enumerate(together):
        (alone, exact), *_ = index.nearest(queries[i : i + 1], 4)
        assert (alone.tolist(), exact.tolist()) == (rows.tolist(), cosines.tolist())


@pytest.mark.parametrize(("count", "found"), [(None, 5), (9, 5), (5, 5), (1, 1)])
def test_no_more_is_found_than_there_is(library, count, found):
    assert [len(rows) for rows, _ in VectorIndex(unit(5)).nearest(unit(2), count)] == [found, found]


def test_no_queries_have_no_answers(library):
    assert VectorIndex(unit(5)).nearest(np.empty((0, 16), np.float32), 3) == []


def test_few_vectors_are_searched_exactly_although_approximate_search_is_asked_for():
    pytest.importorskip("faiss")
    index = VectorIndex(unit(100), approximate=True)
    assert index.exact
    assert [rows.tolist() for rows, _ in index.nearest(unit(100), 1)] == [[i] for i in range(100)]


def test_approximate_search_finds_most_and_says_what_it_is(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(vector_index, "FEW", 1000)
    vectors = unit(3000, width=4)
    index, exact = VectorIndex(vectors, approximate=True), VectorIndex(vectors)
    assert (index.exact, exact.exact) == (False, True)
    queries = unit(100, width=4, seed=2)
    pairs = list(zip(index.nearest(queries, 10), exact.nearest(queries, 10), strict=True))
    assert sum(len({*some.tolist()} & {*all_.tolist()}) for (some, _), (all_, _) in pairs) > 600
    again = VectorIndex(vectors, approximate=True).nearest(queries, 10)
    assert all(one.tolist() == other.tolist() for (one, _), ((other, _), _) in zip(again, pairs, strict=True))


def test_approximate_search_without_the_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install faiss-cpu \(the extra retrieval\)"):
        VectorIndex(unit(3), approximate=True)
