"""Whole answers of a trained model, and their scores: BLEU and chrF of translations, the character error of speech.

While a model trains, every symbol of a translation is predicted from the true ones before it. Here it hears only itself: symbol after
symbol the likeliest (greedy), or with CTC the likeliest path. The scores are computed by the packages that the field uses, sacrebleu
(Post 2018) and jiwer.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any, Iterable, Sequence

import numpy as np
import torch
from torch import nn

from ..data import speech, translation
from ..data.examples import Examples
from ..errors import UserError
from ..models.ctc import CTC, transcribe
from ..models.seq2seq import Seq2Seq, translate
from .tasks import CHUNK, END, PAD

NEVER_SAID, NEVER_RIGHT = "\N{WHITE SQUARE}", "\N{REPLACEMENT CHARACTER}"  # for symbols that stand for no word: in a reference, in an answer


@dataclass(frozen=True)
class Answer:
    """What a model says to one example, and what is right, in words, phonemes or letters."""

    row: int                     # in its split
    input: tuple[str, ...]       # of a recording only its length, ("87 frames",)
    said: tuple[str, ...]
    reference: tuple[str, ...]


def answers(model: nn.Module, data: Examples, split: str = "test", most: int = 1000) -> list[Answer]:
    """The greedy answers of a model (K = 1) to examples spread evenly over a split, all of it where that has at most `most`.

    An answer ends where the model ends it, or after as many symbols as the split's longest target has.

    Raises: UserError where the model does not answer in symbols.
    """
    if not isinstance(model, (Seq2Seq, CTC)):
        raise UserError(f"a {type(model).__name__} gives no answers of several symbols: choose a run of translation or speech")
    arrays, where = getattr(data, split), next(model.parameters()).device
    rows = np.linspace(0, len(arrays["target"]) - 1, min(most, len(arrays["target"]))).astype(np.int64)
    symbols, found = data.symbols, []
    for chunk in np.split(rows, range(CHUNK, len(rows), CHUNK)):
        input, target = (np.array(arrays[name][chunk]) for name in ("input", "target"))
        given = [torch.from_numpy(input.astype(np.int64) if "input" in symbols else input).to(where)[None]]
        lengths = arrays["frames"][chunk] if "frames" in arrays else None
        if lengths is not None:
            given.append(torch.from_numpy(lengths.astype(np.int64)).to(where)[None])
        said = translate(model, *given, longest=target.shape[1]) if isinstance(model, Seq2Seq) else transcribe(model, *given)
        heard = [(f"{n} frames",) for n in lengths] if lengths is not None else [_named(row[row > END], symbols["input"]) for row in input]
        found += [Answer(int(number), one, _named(ours[ours != PAD], symbols["target"]), _named(right[right > END], symbols["target"]))
                  for number, one, ours, right in zip(chunk, heard, said[0].cpu().numpy(), target)]
    return found


def scores(found: Sequence[Answer], domain: str) -> dict[str, Any]:
    """How good the answers are as wholes, by the measures of a domain, and under `by` how each is computed.

    translation: `bleu` (Papineni et al. 2002) and `chrf` (Popović 2015) of the corpus, 0 to 100, of words as the data has
    them: lower-case, marks apart, one reference each. speech: `cer`, the insertions, deletions and replacements of letters that mend
    the answers, per letter of the references, from 0 and perhaps above 1. Both: `exact`, the share of answers that are right
    throughout.

    A word outside of the vocabulary, <unk>, is never right, not even where the model says <unk>. BLEU is the one that the true words
    would give; in chrF such a word counts as one character.

    Raises: UserError where there are no answers, or sacrebleu or jiwer is not installed.
    """
    if not found:
        raise UserError("there are no answers to score")
    glue = {"translation": " ", "speech": ""}[domain]
    said = [glue.join(_marked(answer.said, NEVER_RIGHT)) for answer in found]
    right = [glue.join(_marked(answer.reference, NEVER_SAID)) for answer in found]
    exact = sum(map(str.__eq__, said, right)) / len(found)
    if domain == "speech":
        jiwer = _package("jiwer")
        return {"cer": float(jiwer.cer(right, said)), "exact": exact, "by": {"cer": f"jiwer {version('jiwer')}"}}
    sacrebleu = _package("sacrebleu")
    metrics = {"bleu": sacrebleu.BLEU(tokenize="none", force=True), "chrf": sacrebleu.CHRF()}
    values = {name: metric.corpus_score(said, [right]).score for name, metric in metrics.items()}
    return {**values, "exact": exact, "by": {name: f"sacrebleu {metric.get_signature()}" for name, metric in metrics.items()}}


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(f"scores of whole answers need the package {name}: pip install 'minitransformer[scores]'") from None


def _named(ids: Iterable[int], symbols: Sequence[str]) -> tuple[str, ...]:
    return tuple(symbols[i] for i in ids)


def _marked(symbols: Iterable[str], mark: str) -> list[str]:
    """With one character in the place of each symbol that stands for no word or letter."""
    special = {*translation.SPECIAL, *speech.SPECIAL}
    return [mark if symbol in special else symbol for symbol in symbols]
