"""Anybody's table: what must be read, and what must be refused in one line."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minitransformer.errors import UserError
from minitransformer.laws.forms import form
from minitransformer.laws.table import amount, fit_table, read_table
from terminal import command


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def grid(rng=0):
    """36 runs of six sizes by six lengths, of a known law with seed noise; values read well in every notation."""
    random = np.random.default_rng(rng)
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e9, 6).round(-3), np.geomspace(1e8, 1e11, 6).round(-3)))
    truth = {"E": 1.8, "A": 400.0, "B": 900.0, "alpha": 0.34, "beta": 0.3}
    loss = form("chinchilla").loss(truth, N=N, D=D) * np.exp(0.002 * random.standard_normal(len(N)))
    return pd.DataFrame({"N": N.astype(int), "D": D.astype(int), "loss": loss.round(6)})


def text(frame, **options):
    return frame.to_csv(index=False, **options)


# --- broken tables -----------------------------------------------------------------------------------------------
# Each kind makes (file name, bytes, further arguments) out of hypothesis's draw; every one must end in one line and status 2.

WORDS = st.text(st.characters(codec="utf-8", exclude_characters='\r\n,;\t|"#\0'), min_size=1, max_size=8).filter(
    lambda w: w.strip() and not re.search(r"\d", w) and w.strip().lower() not in ("inf", "infinity", "na", "n/a", "nan", "null", "none", "-", "--", "?"))
ROW = st.integers(0, 35)


def put(draw, column, values):
    """The grid with some cells of a column replaced."""
    frame = grid().astype(object)
    for row in draw(st.lists(ROW, min_size=1, max_size=5, unique=True)):
        frame.loc[row, column] = draw(values)
    return "runs.csv", text(frame).encode(), ()


def lines(draw, edit):
    rows = text(grid(draw(st.integers(0, 10**6)))).splitlines()
    return "runs.csv", "\n".join(edit(rows)).encode(), ()


def some(draw):
    return grid(draw(st.integers(0, 10**6)))


def with_column(draw, name, values):
    frame = some(draw)
    frame[name] = [draw(st.sampled_from(values)) if i > 1 else values[i] for i in range(len(frame))]
    return "runs.csv", text(frame).encode(), ()


def bad_row(draw, change):
    at = draw(st.integers(1, 36))
    return lines(draw, lambda rows: [*rows[:at], change(rows[at]), *rows[at + 1 :]])


number = st.floats(1e3, 1e12).map(repr)

BROKEN = {
    "nothing but blanks and comments": lambda draw: (
        "runs.csv", "\n".join(draw(st.lists(st.sampled_from(["", " ", "\t", "# note", "#"]), max_size=9))).encode(), ()),
    "a header and no rows": lambda draw: ("runs.csv", ("N,D,loss" + draw(st.text("\n ,", max_size=9))).encode(), ()),
    "no header": lambda draw: lines(draw, lambda rows: rows[1:]),
    "one column": lambda draw: ("runs.csv", "\n".join(["loss", *draw(st.lists(number, min_size=1, max_size=9))]).encode(), ()),
    "no size": lambda draw: ("runs.csv", text(some(draw).rename(columns={"N": draw(WORDS) + "_q"})).encode(), ()),
    "no data": lambda draw: ("runs.csv", text(some(draw).rename(columns={"D": draw(WORDS) + "_q"})).encode(), ()),
    "no loss": lambda draw: ("runs.csv", text(some(draw).rename(columns={"loss": draw(st.sampled_from(["ppl", "train_loss", "accuracy"]))})).encode(), ()),
    "a row too short": lambda draw: bad_row(draw, lambda row: row.rpartition(",")[0]),
    "a row too long": lambda draw: (lambda extra: bad_row(draw, lambda row: f"{row},{extra}"))(draw(number)),
    "an open quote": lambda draw: bad_row(draw, lambda row: '"' + row),
    "words among the sizes": lambda draw: put(draw, "N", WORDS),
    "words among the losses": lambda draw: put(draw, "loss", WORDS),
    "losses with units": lambda draw: put(draw, "loss", st.floats(1, 9).map(lambda v: f"{v:.3f} nats")),
    "booleans": lambda draw: put(draw, "D", st.booleans()),
    "dates": lambda draw: put(draw, "D", st.dates().map(str)),
    "complex numbers": lambda draw: put(draw, "loss", st.complex_numbers(max_magnitude=9).filter(lambda c: c.imag).map(str)),
    "sizes below zero": lambda draw: put(draw, "N", st.integers(-(10**12), 0)),
    "losses below zero": lambda draw: put(draw, "loss", st.floats(-9, 0)),
    "losses not finite": lambda draw: put(draw, "loss", st.sampled_from(["nan", "NaN", "inf", "-inf", "Infinity", "", "NA", "1e999", "-"])),
    "sizes missing": lambda draw: put(draw, "N", st.sampled_from(["", "nan", "inf", "none", "9e9999", "?"])),
    "a column twice": lambda draw: lines(draw, lambda rows: [f"{row},{(row.split(',') + ['loss'])[0]}" for row in rows]),
    "two columns of sizes": lambda draw: ("runs.csv", text(
        some(draw).rename(columns={"N": "params"}).assign(**{draw(st.sampled_from(["Parameters", "model size", "non_embedding_params"])): 1})).encode(), ()),
    "two losses": lambda draw: ("runs.csv", text(
        some(draw).rename(columns={"loss": "val_loss"}).assign(**{draw(st.sampled_from(["test_loss", "Validation Loss", "eval-loss"])): 1})).encode(), ()),
    "mixed tokenizers": lambda draw: with_column(draw, draw(st.sampled_from(["tokenizer", "Tokenizer", "vocab_size"])), ["256", "50257", "32k"]),
    "mixed corpora": lambda draw: with_column(draw, draw(st.sampled_from(["corpus", "Dataset", "corpus_sha256"])), ["c4", "pile", "web, text"]),
    "nothing complete": lambda draw: ("runs.csv", text(some(draw).assign(status=draw(st.sampled_from(["diverged", "failed", "", "42"])))).encode(), ()),
    "too few runs": lambda draw: ("runs.csv", text(some(draw).head(draw(st.integers(1, 6)))).encode(), ()),
    "one run again and again": lambda draw: ("runs.csv", text(pd.concat([some(draw).head(1)] * draw(st.integers(8, 20)))).encode(), ()),
    "one ratio for all": lambda draw: ("runs.csv", text(some(draw).assign(D=lambda f: draw(st.integers(1, 400)) * f.N)).encode(), ()),
    "one size": lambda draw: ("runs.csv", text(some(draw).assign(N=draw(st.integers(1, 10**9)))).encode(), ()),
    "decimal or thousand": lambda draw: ("runs.csv", text(some(draw).assign(N=lambda f: [f"{1 + i // 6},{draw(st.integers(100, 999))}" for i in range(36)]),
                                                          sep=";").encode(), ()),
    "bytes that are no text": lambda draw: ("runs.csv", draw(st.binary(min_size=4)) + b"\0\xff\x00", ()),
    "another encoding": lambda draw: ("runs.csv", text(some(draw).rename(columns={"loss": "größe"})).encode(draw(st.sampled_from(["latin-1", "cp1252", "utf-32"]))), ()),
    "half of a UTF-16 file": lambda draw: ("runs.csv", text(some(draw)).encode("utf-16")[: 2 * draw(st.integers(20, 300)) + 1], ()),
    "no parquet": lambda draw: (draw(st.sampled_from(["runs.parquet", "runs.PARQUET"])), draw(st.binary(max_size=99)), ()),
    "half of a parquet file": lambda draw: ("runs.csv", parquet(some(draw))[: draw(st.integers(4, 999))], ()),
    "a cell of a megabyte": lambda draw: bad_row(draw, lambda row: "x" * draw(st.integers(200_000, 300_000)) + row),
    "no such column": lambda draw: ("runs.csv", text(some(draw)).encode(), (draw(st.sampled_from(["--N", "--D", "--y", "--seed"])), draw(WORDS) + "_q")),
    "no such rows": lambda draw: ("runs.csv", text(some(draw)).encode(), ("--where", draw(st.sampled_from(["N=7", "loss=", "=3", "N", "", "seed=1", "N=7=8"])))),
    "nothing left": lambda draw: ("runs.csv", text(some(draw)).encode(), draw(st.sampled_from(
        [("--drop-highest", "32"), ("--drop-highest", "99"), ("--within", "1:2"), ("--within", "1e15:")]))),
    "options that make no sense": lambda draw: ("runs.csv", text(some(draw)).encode(), draw(st.sampled_from(
        [("--within", "9:1"), ("--within", "a:b"), ("--within", "5"), ("--delta", "0"), ("--delta", "nan"), ("--delta", "-1"), ("--drop-highest", "-1"),
         ("--x", "N"), ("--x", "seed"), ("--x", "loss"), ("--law", "x"), ("--law", "")]))),
}  # fmt: skip
EACH = 8  # distinct tables of every kind at the very least


def parquet(frame):
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_table_is_one_line_and_status_2(kind, tmp_path):
    seen = set()

    @settings(max_examples=3 * EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.booleans())
    def broken(data, as_json):
        name, content, more = BROKEN[kind](data.draw)
        if (content, more) in seen:
            return
        seen.add((content, more))
        path = tmp_path / name
        path.write_bytes(content)
        law = () if more[:1] == ("--law",) else ("--law", "chinchilla")
        refused(*command("fit", path, *law, *more, *["--json"] * as_json))

    broken()
    assert len(seen) >= EACH or kind == "options that make no sense"


def refused(status, out, err):
    assert status == 2, (status, out, err)
    (line,) = err.splitlines()
    assert line.startswith("minitransformer: ") and len(line) > 40 and line.isprintable()
    if out:  # only --json, and only where the table could be read
        answer = strict(out)
        assert answer["status"] not in ("ok", "at_bound") and answer["reason"] and answer["status"] in line
        assert answer["parameters"] == {} and answer["objective"] is None


def test_there_are_more_than_two_hundred_broken_tables():
    assert len(BROKEN) * EACH > 300


cells = st.one_of(st.floats(allow_nan=True, allow_infinity=True).map(repr), st.floats(1e-3, 1e12).map(repr), st.integers(-3, 10**18).map(str),
                  st.sampled_from(["", "1e3", "x", "True", "1" * 400, "1j", "5e-324", "1e308", "1,5", "70B", '"']), st.text(max_size=5))
headers = st.sampled_from(["N", "D", "C", "S", "U", "B", "L", "loss", "val_loss", "seed", "group", "status", "params", "tokens", "n", ""])


@settings(max_examples=150, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(headers, min_size=1, max_size=6), st.lists(st.lists(cells, min_size=1, max_size=6), max_size=12), st.sampled_from(",;\t"),
       st.sampled_from(["power", "power-floor", "regions", "b-crit", "kaplan-nd", "kaplan-ns", "chinchilla", "data-constrained"]))
def test_any_text_is_fitted_or_refused_but_never_a_traceback(tmp_path, header, rows, separator, law):
    path = tmp_path / "any.csv"
    path.write_text("\n".join(separator.join(row) for row in [header, *rows]), encoding="utf-8", errors="replace")
    fitted_or_refused("fit", path, "--law", law)


positive = st.floats(5e-324, 1.7e308)


@settings(max_examples=60, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(positive, positive, positive), min_size=7, max_size=14, unique=True), st.booleans(),
       st.sampled_from(["power", "power-floor", "regions", "chinchilla", "kaplan-nd"]))
def test_wild_but_valid_numbers_give_no_nan(tmp_path, rows, as_json, law):
    path = tmp_path / "wild.csv"
    path.write_text(text(pd.DataFrame(rows, columns=["N", "D", "loss"])), encoding="utf-8")
    fitted_or_refused("fit", path, "--law", law, *["--json"] * as_json)


def fitted_or_refused(*arguments):
    status, out, err = command(*arguments)
    if status == 0:
        assert err == "" and not re.search(r"\bnan\b", out, re.I), out
        if "--json" in arguments:
            strict(out)
    else:
        refused(status, out, err)


@pytest.mark.parametrize("what", ["missing", "folder", "device", "large", "many rows", "wide"])
def test_what_is_no_table_of_runs(what, tmp_path):
    path = tmp_path / "runs.csv"
    if what == "folder":
        path.mkdir()
    elif what == "device":
        path = "/dev/null"
    elif what == "large":
        with path.open("wb") as file:
            file.truncate(10**12)
    elif what == "many rows":
        path.write_text("N,D,loss\n" + "1,2,3\n" * 200_001)
    elif what == "wide":
        path.write_text(",".join(f"c{i}" for i in range(9_999)) + "\n" + ",".join(["1"] * 9_999))
    refused(*command("fit", path, "--law", "chinchilla"))


@pytest.mark.parametrize("kind", ["words among the losses", "losses not finite", "mixed tokenizers", "bytes that are no text", "one ratio for all"])
def test_a_real_process_says_the_same(kind, tmp_path):
    example = {}

    @settings(max_examples=1, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def draw(data):
        example["made"] = BROKEN[kind](data.draw)

    draw()
    name, content, more = example["made"]
    (tmp_path / name).write_bytes(content)
    arguments = ["fit", str(tmp_path / name), "--law", "chinchilla", *more]
    result = subprocess.run([sys.executable, "-m", "minitransformer.cli", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    refused(result.returncode, result.stdout, result.stderr)
    assert (result.returncode, result.stdout, result.stderr) == command(*arguments)


# --- odd tables that are good ------------------------------------------------------------------------------------


def european(frame):
    return frame.assign(loss=[str(v).replace(".", ",") for v in frame.loss]).to_csv(index=False, sep=";")


PLAIN = grid()
ODD = {
    "a mark of byte order": text(PLAIN).encode("utf-8-sig"),
    "UTF-16": text(PLAIN).encode("utf-16"),
    "Windows lines": text(PLAIN, lineterminator="\r\n").encode(),
    "old Macintosh lines": text(PLAIN, lineterminator="\r").encode(),
    "semicolons": text(PLAIN, sep=";").encode(),
    "semicolons and decimal commas": european(PLAIN).encode(),
    "tabs": text(PLAIN, sep="\t").encode(),
    "bars": text(PLAIN, sep="|").encode(),
    "spaces after commas": text(PLAIN).replace(",", ", ").encode(),
    "quotes everywhere": text(PLAIN, quoting=1).encode(),
    "thousands with commas": text(PLAIN.assign(N=[f"{n:,}" for n in PLAIN.N], D=[f"{d:,}" for d in PLAIN.D])).encode(),
    "thousands with spaces": text(PLAIN.assign(N=[f"{n:,}".replace(",", "\u00a0") for n in PLAIN.N])).encode(),
    "suffixes": text(PLAIN.assign(N=[f"{n / 1e6!r}M" for n in PLAIN.N], D=[f"{d / 1e9!r} B" for d in PLAIN.D])).encode(),
    "columns in another order": text(PLAIN[["loss", "D", "N"]]).encode(),
    "rows in another order": text(PLAIN.sample(frac=1, random_state=0)).encode(),
    "other names": text(PLAIN.set_axis(["Model Size", "Training-Tokens", "Validation Loss"], axis=1)).encode(),
    "small letters": text(PLAIN.set_axis(["n", "d", "LOSS"], axis=1)).encode(),
    "compute instead of tokens": text(PLAIN.assign(flops=6.0 * PLAIN.N * PLAIN.D).drop(columns="D")).encode(),
    "comments and blank lines": ("# my runs, it's all \"there\"\n\n" + text(PLAIN).replace("\n", "\n# x\n\n", 5)).encode(),
    "commas at the ends": text(PLAIN).replace("\n", ",,\n").encode(),
    "columns of words": text(PLAIN.assign(note='says "no", twice', tokenizer="bpe", dataset="c4")).encode(),
    "cells over two lines": text(PLAIN.assign(note="one\ntwo")).encode(),
    "diverged runs": text(pd.concat([PLAIN.assign(status="complete"), PLAIN.head(9).assign(loss="nan", status="diverged")])).encode(),
    "a loss and other losses": text(PLAIN.assign(val_loss=1, test_loss=2, train_loss=3)).encode(),
    "parquet under another name": parquet(PLAIN),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_table_gives_the_same_law(kind, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes(ODD[kind])
    status, out, err = command("fit", path, "--law", "chinchilla", "--json")
    assert (status, err) == (0, ""), err
    found, plain = strict(out), fit_table(PLAIN, "chinchilla").to_dict()
    for name, estimate in plain["parameters"].items():
        assert found["parameters"][name] == pytest.approx(estimate, rel=1e-6)
    assert found["n_points"] == 36
    said = " ".join(found["notes"])
    assert ("C / (6 N)" in said) == (kind == "compute instead of tokens") and ("diverged" in said) == (kind == "diverged runs")


def test_the_law_behind_the_table_is_recovered():
    law = fit_table(PLAIN, "chinchilla")
    for name, true in {"E": 1.8, "alpha": 0.34, "beta": 0.3}.items():
        e = law.parameters[name]
        assert e.value == pytest.approx(true, abs=0.03) and e.low < true < e.high


def test_a_frame_is_read_as_its_file_is(tmp_path):
    frame = PLAIN.assign(val_loss=1.0, batch_size=8)
    frame.to_csv(tmp_path / "runs.csv", index=False)
    pd.testing.assert_frame_equal(read_table(frame, need=("N", "loss"))[["N", "loss"]].reset_index(drop=True),
                                  read_table(tmp_path / "runs.csv", need=("N", "loss"))[["N", "loss"]].reset_index(drop=True))
    table = read_table(frame)
    assert set(table.columns) == {"N", "D", "C", "loss", "val_loss", "batch_size"}
    assert list(table.C) == pytest.approx(list(6 * table.N * table.D)) and "6 N D" in table.attrs["notes"][0]


def test_a_flag_wins_over_a_name():
    table = PLAIN.assign(params=2 * PLAIN.N, final=3.0)
    read = read_table(table, {"N": "params", "loss": "final"})
    assert list(read.N) == list(2 * PLAIN.N) and set(read.loss) == {3.0}
    assert list(read_table(table).N) == list(PLAIN.N)


def test_tokens_are_computed_anew_when_asked():
    law = fit_table(PLAIN.assign(C=12.0 * PLAIN.N * PLAIN.D), "chinchilla", derive_D=True)
    assert law.ranges["D"] == pytest.approx((2 * PLAIN.D.min(), 2 * PLAIN.D.max()))
    with pytest.raises(UserError, match="needs a column for C"):
        fit_table(PLAIN, "chinchilla", derive_D=True)


def test_highest_losses_are_left_out_and_counted():
    law = fit_table(PLAIN, "chinchilla", drop_highest=4)
    kept = PLAIN.sort_values("loss")[:-4]
    assert law.n_runs == 32 and "4 highest of 36" in law.notes[0]
    assert law.to_dict()["parameters"] == fit_table(kept.sort_index(), "chinchilla").to_dict()["parameters"]


MIXED = pd.concat([PLAIN.assign(tokenizer="char", corpus="a"), PLAIN.assign(tokenizer="bpe", corpus="b", loss=PLAIN.loss + 1)])


def test_tokenizers_and_texts_are_not_mixed():
    law = fit_table(MIXED, "chinchilla")
    assert law.status == "mixed_tokenizers" and "'char', 'bpe'" in law.reason and law.reason.endswith("--where tokenizer=char")
    odd = MIXED.rename(columns={"tokenizer": "Tokenizer"}).replace("char", "single characters")
    assert fit_table(odd, "chinchilla").reason.endswith("--where 'Tokenizer=single characters'")
    assert fit_table(MIXED.assign(tokenizer="bpe"), "chinchilla").status == "mixed_corpora"
    one = fit_table(MIXED, "chinchilla", where=["tokenizer=char"])
    assert one.ok and one.parameters == fit_table(PLAIN, "chinchilla").parameters and "36 of 72" in one.notes[0]


def test_runs_of_other_data_are_not_seeds_of_one_size():
    law = fit_table(PLAIN, "power")
    assert law.status == "mixed_inputs" and law.parameters == {}
    assert law.reason.startswith("D varies from 100M to 100B among runs of one N: choose one with --where") and law.reason.endswith(" or --law chinchilla")
    (condition,) = re.findall(r"--where (\S+) or", law.reason)
    one = fit_table(PLAIN, "power", where=[condition])
    assert one.ok and one.n_runs == 6
    assert fit_table(PLAIN, "power", x="D").reason.startswith("N varies from 1M to 1B among runs of one D")
    named = PLAIN.rename(columns={"D": "Training Tokens"})
    assert "--where 'Training Tokens=" in fit_table(named, "power-floor").reason
    assert "--where data=" in fit_table(PLAIN.rename(columns={"D": "data"}), "power", columns={"D": "data"}).reason
    compute = PLAIN.assign(flops=6.0 * PLAIN.N * PLAIN.D).drop(columns="D")
    assert fit_table(compute, "power").reason.startswith("C varies from")
    assert fit_table(PLAIN, "power", within=(1e15, None)).status != "mixed_inputs"


def test_seeds_and_data_that_grow_with_size_are_one_ladder():
    ladder = pd.DataFrame({"N": np.repeat(np.geomspace(1e6, 1e9, 6), 2), "seed": [0, 1] * 6})
    ladder["loss"] = 9 * ladder.N**-0.1 * (1 + 0.001 * ladder.seed)
    for D in (20 * ladder.N, 1e9 * (1 + 0.04 * ladder.seed), np.nan, "unknown"):
        assert fit_table(ladder.assign(D=D), "power").ok
    assert fit_table(ladder.assign(D=1e9 * (1 + 0.06 * ladder.seed)), "power").status == "mixed_inputs"


def test_a_law_of_data_on_a_table_of_sizes_says_how_to_ask():
    with pytest.raises(UserError, match="--D COLUMN, or fit another input with --x N;"):
        fit_table(PLAIN.drop(columns="D"), "regions")


def test_rows_are_chosen_by_text_number_and_alternatives():
    assert len(read_table(MIXED, where=["N=1M", "tokenizer=bpe"])) == 6
    assert len(read_table(MIXED, where=["tokenizer=bpe", "tokenizer=char"])) == 72
    with pytest.raises(UserError, match="there are 'char', 'bpe'"):
        read_table(MIXED, where=["tokenizer=word"])


def test_a_refusal_names_the_lines(tmp_path):
    frame = PLAIN.astype(object)
    frame.loc[[3, 7], "loss"] = ""
    (tmp_path / "runs.csv").write_text("# a comment\n" + text(frame))
    law = fit_table(tmp_path / "runs.csv", "chinchilla")
    assert law.status == "loss_not_finite" and "(lines 6, 10; delete them, or add a column status" in law.reason
    (tmp_path / "runs.csv").write_text("# a comment\n" + text(frame.assign(status=["failed" if i in (3, 7) else "complete" for i in range(36)])))
    assert fit_table(tmp_path / "runs.csv", "chinchilla").ok


def test_points_of_one_curve_stay_together():
    curves = pd.DataFrame([(n, s, 3 * n**-0.1 + 20 * s**-0.5, n) for n in (1e4, 3e4, 1e5, 1e6) for s in np.geomspace(100, 1e4, 8)],
                          columns=["N", "steps", "loss", "group"])
    assert "few_groups" in fit_table(curves, "kaplan-ns").warnings
    assert "few_groups" not in fit_table(curves.drop(columns="group"), "kaplan-ns").warnings
    assert "few_groups" in fit_table(curves.rename(columns={"group": "run"}), "kaplan-ns", columns={"group": "run"}).warnings


def test_a_critical_batch_is_read_from_losses():
    table = pd.DataFrame({"loss": [5.0, 4.5, 4.0, 3.5, 3.0], "b_crit": [2e8 * L**-4.8 for L in (5.0, 4.5, 4.0, 3.5, 3.0)]})
    law = fit_table(table, "b-crit")
    assert law.parameters["alpha_B"].value == pytest.approx(1 / 4.8) and law.parameters["B_star"].value == pytest.approx(2e8)


def test_any_column_can_be_the_input():
    table = pd.DataFrame({"hours": [1, 10, 100, 1000], "error": [0.4, 0.2, 0.1, 0.05]})
    law = fit_table(table, "power", x="hours", y="error")
    assert law.exponent.value == pytest.approx(np.log10(2)) and law.form.inputs == ("hours",)
    assert fit_table(table.rename(columns={"hours": "params"}), "power", x="params", y="error").form.inputs == ("N",)


@pytest.mark.parametrize("written, value", [("1e21", 1e21), ("70B", 7e10), ("1.4T", 1.4e12), ("1,000,000", 1e6), (" 5 k ", 5e3), ("1_000", 1e3)])
def test_amounts(written, value):
    assert amount(written) == pytest.approx(value)


@pytest.mark.parametrize("written", ["", "x", "0", "-1", "nan", "inf", "1e999", "70Q", "B", "1,00", "1 2", "\u0661"])
def test_amounts_refused(written):
    with pytest.raises(UserError, match="above zero"):
        amount(written, "--params")
