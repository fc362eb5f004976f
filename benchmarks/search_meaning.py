"""Measure how well searches as people type them find pictures: nDCG@10 over the queries of queries.json.

    python benchmarks/search_meaning.py [--work FOLDER] [--pictures N] [--queries N]

Hangs the 480 held-out drawings of the perceiver's training (drawn into FOLDER where they are missing; minutes) in a gallery in a
temporary folder, each with one of its captions as its prompt, and searches as the product does:

- words: what the search box finds by words alone, every word demanded, the newest first;
- any word: the prompts ranked by how many of the query's words and Chinese character pairs they have, weighted by rarity
  (BM25, Robertson & Zaragoza 2009), as text search engines do;
- product: words first, then "looks like" by the perceiver;
- ranker: the same where STARRY_RANKER names a model, which judges the words of the 50 nearest pictures; only where it is set;
- embedder: the words of all pictures by the cosine of STARRY_EMBEDDER's vectors; only where that names a model. The product does
  not search so: it is there to compare.

A picture's gain is the squared share of the query's wants that it shows. The intervals are 95 % bootstrap intervals over
queries (10,000 draws). Prints a table, by kind of query and for the half of the queries that was not looked at while the
synonyms were written, and the time of a search.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starrynight.firefly.training import data
from starrynight.gallery.descriptions import Seen
from starrynight.gallery.schema import Row
from starrynight.gallery.search import Query
from starrynight.gallery.store import Gallery
from starrynight.i18n import Text
from starrynight.picture import Picture, make_recipe
from starrynight.request import PaintRequest
from starrynight.senses import embedding, look, perceiver
from starrynight.senses.choice import BUILT_IN, OFF, Choice, chosen
from starrynight.senses.training.evaluate import ndcg_of
from starrynight.senses.training.truth import facts_of
from starrynight.senses.verbs import FIRST_SEEDS, SIDE
from starrynight.settings import settings

PICTURES, FIRST, RERANKED = 480, 10, 50
DRAWS = 10_000
PUBLISHED = "published: a reranker over long-tail Chinese queries gained 37 %"

Ranking = Callable[[str], list[str]]


def hang(gallery: Gallery, drawn: data.PictureSet, pictures: int) -> dict[str, frozenset[str]]:
    """Hang the first drawings and look at them; the facts of each picture by its id."""
    eye, facts = perceiver.load(), {}
    for row, record in enumerate(drawn.records[:pictures]):
        pixels = np.asarray(drawn.pictures[row])
        prompt = str(np.random.default_rng(row).choice(record["captions"]))
        hung = gallery.add(Picture(pixels, make_recipe(PaintRequest(prompt=prompt, seed=row))))
        gallery.descriptions.write(hung.id, Seen(eye.name, {}, eye.see(pixels).vector, eye.name))
        facts[hung.id] = facts_of(record["shows"])
    return facts


def by_words(gallery: Gallery, text: str) -> list[str]:
    """The ids that the search box finds, the newest first."""
    return [row.id for row in gallery.search(Query(text=text), limit=RERANKED).rows]


def by_product(gallery: Gallery, ranker: Choice) -> Ranking:
    """As ``starry gallery search`` and the page show them: words, then what looks like it, in the order of a ranker."""

    def ranked(text: str) -> list[str]:
        meant = look.by_meaning(gallery, Query(text=text), RERANKED, fail, ranker)
        return list(dict.fromkeys([*by_words(gallery, text), *(match.row.id for match in meant)]))

    return ranked


def fail(why: Text) -> None:
    """A row that another model made would say nothing of the one that is set."""
    raise SystemExit(why.en)


def terms(text: str) -> list[str]:
    """Latin words, and Chinese characters in pairs."""
    runs = re.findall(r"[\u3400-\u9fff]+", text)
    pairs = [run[k : k + 2] for run in runs for k in range(max(1, len(run) - 1))]
    return [*re.findall(r"[a-z]+", text.lower()), *pairs]


def any_word(rows: Sequence[Row]) -> Ranking:
    """BM25 over the prompts with its usual constants 1.2 and 0.75."""
    counts = [Counter(terms(row.prompt)) for row in rows]
    lengths = np.array([sum(one.values()) for one in counts])
    holding = Counter(term for one in counts for term in one)

    def ranked(text: str) -> list[str]:
        scores = np.zeros(len(rows))
        for term in terms(text):
            rarity = math.log(1 + (len(rows) - holding[term] + 0.5) / (holding[term] + 0.5))
            often = np.array([one[term] for one in counts])
            scores += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
        order = np.argsort(-scores, kind="stable")
        return [rows[place].id for place in order if scores[place] > 0][:RERANKED]

    return ranked


def by_vectors(rows: Sequence[Row], embedder: Choice) -> Ranking:
    """The words of every picture, as a ranker reads them, by the cosine of an embedder's vectors."""

    def vectors(texts: Sequence[str]) -> np.ndarray:
        found = embedding.embed(texts, embedder)
        if found.failed is not None:
            fail(found.failed)
        return found.vectors

    texts = [look.words_of(row) for row in rows]
    known = np.concatenate(
        [vectors(texts[start : start + embedding.MOST]) for start in range(0, len(texts), embedding.MOST)]
    )

    def ranked(text: str) -> list[str]:
        order = np.argsort(-(known @ vectors([text])[0]), kind="stable")
        return [rows[place].id for place in order[:RERANKED]]

    return ranked


def scores(
    ranking: Ranking, queries: Sequence[dict[str, Any]], facts: dict[str, frozenset[str]]
) -> np.ndarray:
    """nDCG@10 of each query."""
    found = []
    for query in queries:
        wants = [set(want.split("|")) for want in query["wants"]]
        gains = {
            name: (sum(bool(want & there) for want in wants) / len(wants)) ** 2
            for name, there in facts.items()
        }
        found.append(ndcg_of([gains[one] for one in ranking(query["text"])], list(gains.values()), FIRST))
    return np.array(found)


def interval(some: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = some[rng.integers(len(some), size=(DRAWS, len(some)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def row(name: str, found: np.ndarray, groups: dict[str, np.ndarray]) -> str:
    low, high = interval(found)
    cells = " | ".join(f"{found[group].mean():.2f}" for group in groups.values())
    return f"| {name} | {found.mean():.3f} ({low:.3f}–{high:.3f}) | {cells} |"


def measure(
    gallery: Gallery, queries: Sequence[dict[str, Any]], facts: dict[str, frozenset[str]]
) -> dict[str, np.ndarray]:
    """nDCG@10 of each query by way of searching."""
    rows, ranker, embedder = list(gallery.iter_rows()), chosen("ranker"), chosen("embedder")
    ways: dict[str, Ranking] = {
        "words": lambda text: by_words(gallery, text), "any word": any_word(rows),
        "product": by_product(gallery, Choice("ranker", BUILT_IN)),
    }  # fmt: skip
    if ranker.kind not in (BUILT_IN, OFF):
        ways[f"ranker {ranker.name}"] = by_product(gallery, ranker)
    if embedder.kind not in (BUILT_IN, OFF):
        ways[f"embedder {embedder.name}"] = by_vectors(rows, embedder)
    return {name: scores(ranking, queries, facts) for name, ranking in ways.items()}


def groups_of(queries: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The queries by language and kind, and those not looked at, as masks."""
    chinese = np.array([bool(re.search(r"[\u3400-\u9fff]", query["text"])) for query in queries])
    kinds = np.array([query["kind"] for query in queries])
    unseen = np.arange(len(queries)) % 2 == 1
    named = {
        "zh": chinese,
        "en": ~chinese,
        "not looked at": unseen,
        **{kind: kinds == kind for kind in dict.fromkeys(kinds)},
    }
    return {name: mask for name, mask in named.items() if mask.any()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=settings().home / "training-perceiver")
    parser.add_argument("--misses", type=int, default=0, help="print the worst queries that may be looked at")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="fewer, to try a model")
    parser.add_argument("--queries", type=int, help="fewer, to try a model")
    options = parser.parse_args()
    data.draw(options.work / "held-out", options.pictures, FIRST_SEEDS["held-out"], SIDE, workers=1)
    queries = json.loads(Path(__file__).with_name("queries.json").read_text("utf-8"))["queries"]
    queries = queries[: options.queries]
    with tempfile.TemporaryDirectory() as folder, Gallery(folder) as gallery:
        facts = hang(gallery, data.PictureSet(options.work / "held-out"), options.pictures)
        found = measure(gallery, queries, facts)
        groups = groups_of(queries)
        print(f"{len(queries)} queries, {len(facts)} pictures, {perceiver.load().name}\n")
        print(
            "| nDCG@10 | all | "
            + " | ".join(f"{name} ({mask.sum()})" for name, mask in groups.items())
            + " |"
        )
        print("|---" * (2 + len(groups)) + "|")
        for name, some in found.items():
            print(row(name, some, groups))
        gain = found["product"].mean() / max(1e-9, found["any word"].mean()) - 1
        print(f"\nproduct over any word: {gain:+.0%} ({PUBLISHED})")
        seconds = []
        for query in queries:
            started = time.perf_counter()
            look.by_meaning(gallery, Query(text=query["text"]), ranker=Choice("ranker", BUILT_IN))
            seconds.append(time.perf_counter() - started)
        print(f"\nby meaning: {1000 * statistics.median(seconds):.1f} ms (median)")
    for place in [one for one in np.argsort(found["product"]) if one % 2 == 0][: options.misses]:
        print(f"{found['product'][place]:.2f} {queries[place]['text']} {queries[place]['wants']}")


if __name__ == "__main__":
    main()
