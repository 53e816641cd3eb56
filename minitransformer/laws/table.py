"""Anybody's table of runs: read into the kit's names, checked, and fitted.

One row a run (or a point of a curve), with a header. Columns are found by name: N, D, C, S, U, L, B, loss in any case,
else by the synonyms below, else by the mapping given. Everything else in the table is kept as it is.
"""

from __future__ import annotations

import io
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.fit import fit
from minitransformer.laws.law import REFUSALS, Law, short
from minitransformer.laws.optimise import DELTA

SYNONYMS: dict[str, tuple[str, ...]] = {
    "N": ("params", "parameters", "n_params", "n_parameters", "num_params", "num_parameters", "model_params", "model_parameters",
          "param_count", "parameter_count", "model_size", "non_embedding_params", "non_embedding_parameters", "nonembedding_params",
          "n_non_embedding"),
    "D": ("tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "tokens_seen", "total_tokens"),
    "C": ("flops", "flop", "compute", "train_flops", "training_flops", "training_flop", "total_flops", "training_compute"),
    "S": ("steps", "step", "n_steps", "num_steps", "train_steps", "training_steps", "global_step", "iteration", "iterations",
          "iter", "iters", "updates"),
    "U": ("unique_tokens", "n_unique_tokens", "num_unique_tokens", "unique_data"),
    "L": (),
    "B": ("b_crit", "critical_batch", "critical_batch_size", "batch_tokens", "tokens_per_step", "tokens_per_batch"),
    "loss": ("val_loss", "validation_loss", "valid_loss", "test_loss", "eval_loss"),
    "train_loss": ("training_loss",),
    "seed": ("random_seed",),
    "group": (),
}  # fmt: skip
LABELS = ("seed", "group")                        # kept as text
TOKENIZER, CORPUS = ("tokenizer", "vocab_size"), ("corpus", "corpus_sha256", "dataset")
STATUS = ("status", "state")
COMPLETE = ("complete", "completed", "finished", "done", "ok", "success", "succeeded")
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "--", "?")
SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
SAME = 1.05  # runs of one x whose N or D differ by more than this factor are not seeds of one point
MAX_BYTES, MAX_ROWS, MAX_COLUMNS, MAX_RUNS = 32_000_000, 200_000, 2_000, 10_000

NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([kKmMbBgGtT]?)")
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}([,\s'_])[0-9]{3}(\1[0-9]{3})*(\.[0-9]*)?\s*[kKmMbBgGtT]?")
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?")


def amount(text: str, what: str = "this") -> float:
    """A number as people write them: 1e21, 70B, 1.4T, 1,000,000. UserError unless it is finite and above zero."""
    value = _number(str(text))
    if value is None or not (math.isfinite(value) and value > 0):
        raise UserError(f"{what} must be a number above zero, such as 1e21, 70B or 1.4T, not {shown(text)}")
    return value


def read_table(path: str | Path | pd.DataFrame, columns: Mapping[str, str] | None = None, *, need: Iterable[str] | None = None,
               also: Iterable[str] = (), where: Iterable[str] = (), derive_D: bool = False) -> pd.DataFrame:
    """The runs of a .csv, .tsv or .parquet file (or of a DataFrame), with the kit's names for what a law uses.

    columns: the kit's name -> the header of the table, for headers that are not found by themselves; it wins. need: names
    that must be there, and with those of `also` the only ones read besides labels; by default all that can be found.
    where: "column=value", rows to keep; several values of one column are alternatives. derive_D: D = C / (6 N) even where
    there is a D; where there is none, or no C, it comes from the other two.

    Numbers may have thousands separators, decimal commas and k, M, B, T; `attrs["notes"]` says in sentences what was left
    out or derived. Runs with a status other than complete are left out. UserError, one line, for anything unreadable.
    """
    table, delimiter = _frame(path)
    name = "the table" if isinstance(path, pd.DataFrame) else shown(str(path))
    notes: list[str] = list(table.attrs.get("notes", ()))
    table = _complete(_where(table, where, notes), notes)
    columns = dict(columns or {})
    wanted = (*dict.fromkeys((*SYNONYMS, *columns) if need is None else (*need, *also)),)
    need = () if need is None else tuple(need)
    found, ambiguous = _resolve(table, columns)
    if "L" in need and "L" not in found and "loss" in found:
        found["L"] = found["loss"]
        ambiguous.update({"L": ambiguous["loss"]} if "loss" in ambiguous else {})
    for standard in wanted:
        if standard in ambiguous:
            raise UserError(f"{' and '.join(map(shown, ambiguous[standard]))} could both be {standard}: say which with --{_flag(standard)} COLUMN")

    numbers = lambda standard: _numbers(table[found[standard]], standard, delimiter)
    result = {s: numbers(s) for s in wanted if s in found and s not in LABELS}
    for standard, others, how in (("D", ("C", "N"), "C / (6 N)"), ("C", ("N", "D"), "6 N D")):
        asked = derive_D and standard == "D"
        if standard in wanted and (asked or standard not in found) and all(o in found and o not in ambiguous for o in others):
            first, second = map(numbers, others)
            with np.errstate(all="ignore"):
                result[standard] = first / (6 * second) if standard == "D" else 6 * first * second
            notes.append(f"{standard} was computed as {how} from {' and '.join(shown(found[o]) for o in others)}")
        elif asked:
            raise UserError("D = C / (6 N) needs a column for C and one for N: name them with --C and --N")
    for standard in need:
        if standard not in result and standard not in LABELS:
            raise UserError(f"{name} has no column for {standard}: name it with --{_flag(standard)} COLUMN; its columns are {_listed(table.columns)}")
    for standard in LABELS:
        if standard in found and standard not in ambiguous:
            result[standard] = table[found[standard]].astype(str).to_numpy()
    rest = table.drop(columns=[c for c in table.columns if c in result])
    frame = pd.concat([pd.DataFrame(result, index=table.index), rest], axis=1)
    frame.attrs["notes"] = notes
    return frame


def fit_table(source: str | Path | pd.DataFrame, law: str, *, x: str | None = None, y: str | None = None,
              columns: Mapping[str, str] | None = None, where: Iterable[str] = (), drop_highest: int = 0, within=None,
              delta: float = DELTA, derive_D: bool = False) -> Law:
    """Fit a law to a table: laws.fit on the columns it needs. A table that cannot be fitted gives a Law that says why.

    x: the input of a law of one input; N, D, C, S, or any column. y: the column of losses. drop_highest: leave so many of
    the highest losses out. The other arguments are those of read_table and laws.fit; `Law.notes` says what was done.
    A column `group` (or the one named so in `columns`) marks the points of one training curve.
    """
    columns = dict(columns or {})
    if x is not None:
        header, x = x, _canonical(x)
        if x in ("loss", *LABELS) or x in fit.__kwdefaults__ or x == "law":
            raise UserError(f"{shown(header)} cannot be the input of a law: choose another column with --x")
        if x != header or x not in SYNONYMS:
            columns.setdefault(x, header)
    form = forms.form(law, x)
    if x is not None and (x,) != form.inputs:
        raise UserError(f"the law {form.name} has the input{'s' * (len(form.inputs) > 1)} {' and '.join(form.inputs)}: leave --x out")
    if drop_highest < 0:
        raise UserError(f"the number of highest losses to leave out must be zero or more, not {drop_highest}")
    target = "B" if form.target == "B_crit" else "loss"
    if y is not None:
        columns[target] = y
    try:
        frame = read_table(source, columns, need=(*form.inputs, target), where=where, derive_D=derive_D)
    except UserError as problem:
        others = [] if x or len(form.inputs) > 1 else [o for o in _resolve(_frame(source)[0], {})[0] if o in "NDCS" and o != form.x]
        if f" has no column for {form.x}:" not in str(problem) or not others:
            raise
        raise UserError(str(problem).replace(f"--{form.x} COLUMN", f"--{form.x} COLUMN, or fit another input with --x {others[0]}")) from None
    notes = list(frame.attrs["notes"])
    if mixed := _mixed(frame):
        status, header, values = mixed
        what = f"{shown(header)}: {_listed(values, 4)}"
        return Law(form, status, f"{REFUSALS[status].format(mixed=what)}, for instance --where {_condition(header, values[0])}", notes=tuple(notes))
    if len(frame) > MAX_RUNS:
        raise UserError(f"{len(frame):,} rows are more than the {MAX_RUNS:,} that a law is fitted to: keep one row a run, or fewer points of each curve")
    if drop_highest:
        loss = frame[target].to_numpy()
        order = np.argsort(np.where(np.isfinite(loss), loss, -np.inf), kind="stable")[::-1][:drop_highest]
        notes.append(f"the {len(order)} highest of {len(loss)} losses were left out, as asked")
        frame = frame.drop(index=frame.index[order])
    if other := _other_input(frame, form, columns, within):
        mixed, remedies = other
        return Law(form, "mixed_inputs", f"{REFUSALS['mixed_inputs'].format(mixed=mixed, x=form.x)}, for instance {remedies}", notes=tuple(notes))
    groups = frame["group"] if "group" in frame and frame["group"].nunique() < len(frame) else None
    fitted = fit(form, frame[target], seed=frame.get("seed"), group=groups, within=within, delta=delta,
                 **{name: frame[name] for name in form.inputs})
    what, _, wrong = fitted.status.partition("_not_")
    if wrong in ("finite", "positive"):
        values = frame[list(form.inputs) if what == "x" else [target]]
        rows = frame.index[~(np.isfinite(values) if wrong == "finite" else values > 0).all(axis=1)]
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        which = f"{frame.index.name}{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:5]))}{more}"
        fitted = replace(fitted, reason=f"{fitted.reason} ({which}; delete them, or add a column status that is complete for the others alone)")
    return replace(fitted, notes=tuple(notes))


# --- columns -----------------------------------------------------------------------------------------------------


def _plain(header: str) -> str:
    """Training FLOPs, training-flops, TRAINING_FLOPS -> training_flops."""
    return re.sub(r"[^0-9a-z]+", "_", str(header).lower()).strip("_")


def _canonical(name: str) -> str:
    """The kit's name for a header, or the header."""
    if name in SYNONYMS:
        return name
    plain = _plain(name)
    return next((s for s, others in SYNONYMS.items() if plain == s.lower() or plain in others), name)


def _flag(standard: str) -> str:
    return {"loss": "y", "train_loss": "train-loss"}.get(standard, standard)


def _resolve(table: pd.DataFrame, columns: dict[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The kit's name -> header; and the names for which several headers would do."""
    found = {standard: _header(list(table.columns), wished) for standard, wished in columns.items()}
    ambiguous = {}
    free = [h for h in table.columns if h not in found.values()]
    for standard, others in SYNONYMS.items():
        names = [] if standard in found else [[h for h in free if h == standard], [h for h in free if _plain(h) == standard.lower()],
                                              [h for h in free if _plain(h) in others]]
        matches = next(filter(None, names), [])
        found.update({standard: matches[0]} if matches else {})
        ambiguous.update({standard: matches} if len(matches) > 1 else {})
    return found, ambiguous


def _header(headers: Sequence[str], wished: str) -> str:
    if wished in headers:
        return wished
    alike = [h for h in headers if _plain(h) == _plain(wished) and _plain(wished)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UserError(f"{' and '.join(map(shown, alike))} could both be meant by {shown(wished)}: write the column's name exactly")
    raise UserError(f"there is no column {shown(wished)}: the columns are {_listed(headers)}")


def _called(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """The headers that are these names, in any case."""
    return [h for name in names for h in table.columns if _plain(h) == name]


# --- rows --------------------------------------------------------------------------------------------------------


def _where(table: pd.DataFrame, where: Iterable[str], notes: list[str]) -> pd.DataFrame:
    rows = len(table)
    wanted: dict[str, list[str]] = {}
    for condition in where:
        column, equals, value = (part.strip() for part in condition.partition("="))
        if not (equals and column):
            raise UserError(f"--where takes column=value, such as tokenizer=char, not {shown(condition)}")
        header = column if column in table.columns else _resolve(table, {})[0].get(column) or _header(list(table.columns), column)
        wanted.setdefault(header, []).append(value)
    for header, values in wanted.items():
        cells = table[header].map(_text)
        keep = cells.isin(values)
        if not keep.any():
            keep = cells.map(_number).isin([n for v in values if (n := _number(v)) is not None])
        if not keep.any():
            raise UserError(f"no row has {shown(header)} = {' or '.join(map(shown, values))}: there are {_listed(cells.unique())}")
        table = table[keep]
    if wanted:
        notes.append(f"{len(table)} of {rows} rows were kept by {' and '.join(shown(f'{h}={v}') for h, vs in wanted.items() for v in vs)}")
    return table


def _complete(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    for header in _called(table, STATUS):
        status = table[header].map(_text)
        keep = status.str.lower().isin(COMPLETE)
        if not keep.all():
            others = status[~keep].replace("", "empty").value_counts()
            counts = ", ".join(f"{shown(value)} {n}" for value, n in others.iloc[:5].items()) + (", ..." if len(others) > 5 else "")
            if not keep.any():
                raise UserError(f"no run is complete: {shown(header)} is {counts}; there is nothing to fit")
            notes.append(f"{int((~keep).sum())} of {len(table)} runs were left out by their {shown(header)}: {counts}")
            table = table[keep]
    return table


def _condition(header: str, value: str) -> str:
    """For --where, quoted as a shell wants it."""
    text = f"{header}={value}"
    return shlex.quote(text) if text.isprintable() else f"{shown(header)}=..."


def _other_input(frame: pd.DataFrame, form: forms.Form, columns: Mapping[str, str], within) -> tuple[str, str] | None:
    """Of a law of one input: which size or data (or compute, where one is not known) differs among runs of equal input, and
    what to do about it."""
    if len(form.inputs) > 1 or form.target == "B_crit":
        return None
    found, ambiguous = _resolve(frame, {k: v for k, v in columns.items() if v in frame.columns})
    inputs = frame[form.x].to_numpy(float)
    low, high = (None, None) if within is None else within
    used = np.isfinite(inputs) & (inputs > 0) & (inputs >= (low or 0)) & (inputs <= (high or math.inf))
    x = np.round(np.log(np.where(used, inputs, 1.0)), 9)
    names = [name for name in ("N", "D") if name in found and name != form.x]
    for name in names or ["C"]:
        if name not in found or name in ambiguous or name == form.x:
            continue
        try:
            values = _numbers(frame[found[name]], name, ",")
        except UserError:  # not the business of this law
            continue
        known = used & np.isfinite(values) & (values > 0)
        spans = pd.Series(values[known]).groupby(x[known]).agg(["min", "max"])
        if not len(spans) or not (spans["max"] > SAME * spans["min"]).any():
            continue
        widest = spans.loc[(spans["max"] / spans["min"]).idxmax()]
        one = frame.loc[known, found[name]].map(_text).mode()[0]
        law = "kaplan-ns" if (form.x, name) == ("S", "N") else "chinchilla"
        return f"{name} varies from {short(widest['min'])} to {short(widest['max'])}", f"--where {_condition(found[name], one)} or --law {law}"
    return None


def _mixed(frame: pd.DataFrame) -> tuple[str, str, list[str]] | None:
    for status, names in (("mixed_tokenizers", TOKENIZER), ("mixed_corpora", CORPUS)):
        for header in _called(frame, names):
            values = [v for v in frame[header].map(_text).unique() if v.lower() not in MISSING]
            sizes = _plain(header) == "dataset" and all(_number(v) is not None for v in values)  # of data sets, not their names
            if len(values) > 1 and not sizes:
                return status, header, values
    return None


# --- cells -------------------------------------------------------------------------------------------------------


def _text(cell: Any) -> str:
    return "" if pd.api.types.is_scalar(cell) and pd.isna(cell) else str(cell).strip()


def _number(text: str, suffix: bool = True) -> float | None:
    """The number in a cell, or None; with `suffix` 70B is one."""
    if text.lower() in ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"):
        return float(text)
    text = text.strip()
    found = NUMBER.fullmatch(re.sub(r"[,\s'_]", "", text) if THOUSANDS.fullmatch(text) else text)
    if not found or (found[2] and not suffix):
        return None
    return float(found[1]) * SUFFIXES.get(found[2].lower(), 1.0)


def _numbers(column: pd.Series, standard: str, delimiter: str) -> np.ndarray:
    """A column as floats, NaN where a cell is empty; UserError names the first cell that is no number."""
    types = pd.api.types
    if types.is_numeric_dtype(column) and not (types.is_bool_dtype(column) or types.is_complex_dtype(column)):
        return column.to_numpy(float, na_value=np.nan)
    loss = standard in ("loss", "train_loss", "L")
    cells = column.map(_text).astype(object)
    if _decimal_commas(list(cells), str(column.name), loss, delimiter):
        cells = cells.str.replace(",", ".")
    values = [math.nan if cell.lower() in MISSING else _number(cell, not loss) for cell in cells]
    if None in values:
        at = values.index(None)
        raise UserError(f"{shown(column.name)} must hold numbers: {column.index.name} {column.index[at]} has {shown(column.map(_text).iloc[at])}")
    return np.array(values)


def _decimal_commas(cells: list[str], header: str, loss: bool, delimiter: str) -> bool:
    """Whether the commas of a column are decimal points; UserError where nobody could tell.

    A comma in a file separated by semicolons is taken for a decimal point in a loss; 98.304 may then be a thousand.
    """
    points, commas = [c for c in cells if "." in c], [c for c in cells if "," in c]
    thousands = bool(commas) and all(map(THOUSANDS.fullmatch, commas))
    decimal = bool(commas) and not points and all(map(DECIMAL_COMMA.fullmatch, commas))
    doubtful = commas if thousands and decimal and loss == (delimiter == ",") else []
    if delimiter == ";" and not loss and points and all(re.fullmatch(r"\d{1,3}\.\d{3}", c) for c in points):
        doubtful = points
    if doubtful:
        raise UserError(f"{shown(doubtful[0])} in the column {shown(header)} may be a decimal or a thousand: "
                        "write decimals with a point and thousands without a comma")
    return decimal and (loss or not thousands)


def shown(text: Any, width: int = 40) -> str:
    """A name or a cell, safe to print on one line."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _listed(values: Iterable[Any], most: int = 12) -> str:
    values = list(values)
    return ", ".join(shown(v) for v in values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


# --- files -------------------------------------------------------------------------------------------------------


def _frame(source: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Raw cells, indexed by line of the file (or by row), and the delimiter."""
    if isinstance(source, pd.DataFrame):
        return _checked(source.rename(columns=str), "the table"), ","
    path = Path(source)
    name = shown(str(path), 80)
    try:
        if not path.is_file():
            raise UserError(f"{name} is a folder: name the file with the table" if path.is_dir() else f"there is no file {name}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{name} has {size / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB read here: keep one row a run")
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(f"cannot read {name}: {problem.strerror or problem}") from None
    if path.suffix.lower() == ".parquet" or data[:4] == b"PAR1":
        return _checked(_parquet(data, name), name), ","
    text = _decode(data, name)
    header = next((line for line in text.split("\n") if line), "")
    bare = re.sub(r'"[^"]*"', "", header)
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else max(",;\t|", key=bare.count)
    return _checked(_cells(text, delimiter, name), name), delimiter


def _parquet(data: bytes, name: str) -> pd.DataFrame:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        small = file.metadata.num_rows <= MAX_ROWS and size <= 10 * MAX_BYTES
        table = file.read().to_pandas() if small else None
    except Exception as problem:
        raise UserError(f"{name} cannot be read as parquet: {shown(problem, 80)}") from None
    if table is None:
        raise UserError(f"{name} is too large for a table of runs: keep one row a run")
    return table.rename(columns=str)


def _decode(data: bytes, name: str) -> str:
    """The text; comments, and rows of nothing but separators, become empty lines."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UserError(f"{name} is not UTF-8 text (line {data[: problem.start].count(10) + 1}): save the table as CSV in UTF-8") from None
    if "\0" in text:
        raise UserError(f"{name} is not a text file: save the table as CSV")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("" if not line.strip(" ,;\t|") or line.lstrip().startswith("#") else line for line in lines)


def _cells(text: str, delimiter: str, name: str) -> pd.DataFrame:
    """Every cell as stripped text, indexed by the line its row ends on."""
    start = len(text) - len(text.lstrip("\n"))
    if start == len(text):
        raise UserError(f"{name} is empty: the first line must name the columns, each further line is a run")
    try:
        cells = pd.read_csv(io.StringIO(text), sep=delimiter, header=None, skiprows=start, dtype=object, keep_default_na=False,
                            skip_blank_lines=False, skipinitialspace=True, engine="python")  # the engine that tells a short row
    except pd.errors.ParserError as problem:
        raise UserError(f"{name} cannot be read as a table with the columns of its first line: {shown(problem, 80)[1:-1]}") from None
    breaks = cells.apply(lambda column: column.str.count("\n")).sum(axis=1).cumsum()
    cells.index = pd.Index(start + 1 + np.arange(len(cells)) + breaks.astype(int), name="line")
    short = cells.isna().any(axis=1)
    cells = cells.map(_text).astype(object)
    filled = (cells != "").any(axis=1)
    if (short & filled).any():
        raise UserError(f"{name}: line {cells.index[short & filled][0]} has fewer cells than the header")
    header = [" ".join(h.split()) for h in cells.iloc[0]]
    if all(_number(h.replace(",", ".")) is not None or h.lower() in MISSING for h in header):
        raise UserError(f"{name} has no header: the first line must name the columns, such as N, D, loss")
    return cells[filled].iloc[1:].set_axis(header, axis=1)


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table without columns that have no name; rows get numbers unless they have lines."""
    table = table.loc[:, table.columns != ""]
    if len(table.columns) > MAX_COLUMNS or len(table) > MAX_ROWS:
        raise UserError(f"{name} has {len(table):,} rows and {len(table.columns):,} columns, more than a table of runs: keep one row a run")
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise UserError(f"{name} has the column {shown(twice[0])} twice: rename one")
    if not len(table):
        raise UserError(f"{name} has a header and no runs below it")
    return table if table.index.name == "line" else table.set_axis(pd.RangeIndex(1, len(table) + 1, name="row"))
