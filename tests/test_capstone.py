"""The capstone: what is answered, what is charged, what is refused, what survives a kill, and how forecasts are marked."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from minitransformer.capstone import Service, accounts, ladder, ledger as ledgers, score
from minitransformer.capstone.challenge import Challenge
from minitransformer.capstone.desk import Desk
from minitransformer.capstone.forecast import LOSSES, POINTS, Forecast, Guess, interval_score
from minitransformer.capstone.ledger import NAME, Ledger
from minitransformer.capstone.server import LONGEST_BODY, bind
from minitransformer.capstone.surface import Surface
from minitransformer.capstone.trainings import Recipe, Refusal, Training
from minitransformer.cli_capstone import app
from minitransformer.errors import UserError

ROOT = Path(__file__).parents[1]
RICH = 10**13
REAL = {"width": 16, "steps": 2000}
BETWEEN = {"width": 20, "steps": 3000}
HERE = Forecast(2e5, Guess(1.4, 1.3, 1.5), Guess(1.45, 1.4, 1.5), Guess(1.3, 1.2, 1.4))


def run_of(table, width, steps):
    return table[(table.d_model == width) & (table.steps == steps)]


# --- what is answered ---------------------------------------------------------------------------------------------


def test_a_real_run_is_answered_with_the_loss_of_one_of_its_seeds():
    service = Service.local("ann", RICH)
    answers = [service.train(**REAL, seed=seed) for seed in range(3)]
    rows = run_of(ladder().runs, 16, 2000)
    assert sorted(answer.loss for answer in answers) == pytest.approx(sorted(rows.loss), abs=1e-6)
    assert {(a.N, a.D, a.C, a.source, a.uncertainty) for a in answers} == {(rows.N.iloc[0], rows.D.iloc[0], rows.C.iloc[0], "run", 0.0)}


def test_which_seed_comes_first_depends_on_the_student_and_on_nothing_else():
    first = {name: Service.local(name, RICH).train(**REAL).loss for name in map(str, range(20))}
    assert len(set(first.values())) == 3
    assert first == {name: Service.local(name, RICH).train(**REAL).loss for name in first}


def test_what_was_not_trained_lies_between_its_neighbours_and_is_noisy_as_they_are():
    drawn = [Service.local(str(i), RICH).train(**BETWEEN) for i in range(200)]
    losses = np.log([answer.loss for answer in drawn])
    reading = ladder().surface.read(ladder().surface.recipe.training(**BETWEEN))
    table = ladder().runs
    assert run_of(table, 24, 4000).loss.max() < math.exp(reading.log_loss) < run_of(table, 16, 2000).loss.min()
    assert losses.mean() == pytest.approx(reading.log_loss, abs=4 * reading.noise / math.sqrt(200))
    assert losses.std() == pytest.approx(reading.noise, rel=0.2)
    assert {answer.source for answer in drawn} == {"interpolated"} and drawn[0].uncertainty == pytest.approx(ladder().surface.uncertainty, abs=1e-6)


def test_a_size_that_is_taken_away_is_found_again_between_the_others():
    """At twice the usual distance, so the error may be four times the stated one, and hardly ever more than twice that."""
    served = ladder().served
    errors = []
    for width in (12, 16, 24, 32, 48):
        rest = Surface.of(served[served.d_model != width])
        for steps, rows in served[served.d_model == width].groupby("steps"):
            try:
                errors.append(rest.read(Training(24 * width**2, int(steps))).log_loss - np.log(rows.loss).mean())
            except Refusal:
                continue
    assert len(errors) > 15
    assert np.sqrt(np.mean(np.square(errors))) < 2 * 4 * ladder().surface.uncertainty


def test_a_surface_that_is_a_cubic_is_found_exactly():
    runs = ladder().served.copy()
    plane = lambda N, S: 3 - 0.1 * np.log(N) - 0.05 * np.log(S) + 0.004 * np.log(N) * np.log(S) + 1e-4 * np.log(N) ** 3
    runs["loss"] = np.exp(plane(runs.N, runs.steps))
    surface = Surface.of(runs)
    for N, steps in ((864, 500), (5000, 3333), (13824, 700), (30000, 1500)):
        assert surface.read(Training(N, steps)).log_loss == pytest.approx(plane(N, steps), abs=1e-9)
    assert surface.uncertainty < 1e-9


def test_held_out_runs_change_no_answer():
    """The runs of the truth may be anything: everything that can be bought is answered as before."""
    honest, runs = ladder(), ladder().runs.copy()
    runs.loc[runs.C * 10 > honest.target, "loss"] *= 1.5
    other = Challenge.of(runs)
    assert other.truth.losses["best"] > 1.4 * honest.truth.losses["best"]
    for width in (6, 7, 16, 23, 32, 40, 64, 90):
        for flops in (3e9, 5e10, 7.2e11):
            asked = honest.surface.recipe.training(width=width, flops=flops)
            try:
                assert other.surface.loss("ann", asked) == honest.surface.loss("ann", asked)
            except Refusal as no:
                with pytest.raises(Refusal, match=str(no)[:30].replace("(", ".")):
                    honest.surface.read(asked)


def test_the_challenge_is_thirty_times_the_budget_and_nobody_can_buy_what_is_held_out():
    challenge = ladder()
    assert 30 * challenge.budget <= challenge.target < 30 * (challenge.budget + 1)
    assert challenge.held_out.C.min() > 2 * challenge.budget
    assert len(challenge.served) + len(challenge.held_out) == len(challenge.runs)
    truth, named = challenge.truth, challenge.named
    real = challenge.runs[(challenge.runs.C == challenge.target)].groupby("d_model").loss.mean()
    assert truth.losses["best"] == pytest.approx(real.min(), rel=1e-4) and truth.losses["oversized"] == pytest.approx(real[192], rel=1e-4)
    assert challenge.surface.recipe.flops(named["oversized"]) == challenge.target and named["dearest"].steps == challenge.runs.steps.max()
    assert truth.N.min() < 1.2 * truth.size < 1.4 * truth.N.min()  # the best size is all but one that was trained
    assert truth.regret(truth.size) == pytest.approx(0, abs=1e-12) and truth.regret(2 * truth.size) == pytest.approx(truth.regret(truth.size / 2))


# --- what is asked, and what it costs -------------------------------------------------------------------------------


def test_a_training_may_be_asked_for_in_several_ways():
    recipe = Recipe(1024, 24)
    asked = Training(13824, 4000)
    C = 6 * 13824 * 4000 * 1024
    for words in ({"width": 24, "steps": 4000}, {"params": 13824, "steps": 4000}, {"width": 24, "tokens": 4000 * 1024}, {"width": 24, "flops": C},
                  {"steps": 4000, "flops": C}, {"params": np.int64(13824), "tokens": np.float32(4096000)}):
        assert recipe.training(**words) == asked
    assert recipe.training(width=24, flops=C - 1) == Training(13824, 3999)
    assert recipe.flops(asked) == C and recipe.width(asked) == 24


@pytest.mark.parametrize("words, said", [
    ({"width": 24}, "two things"), ({"width": 24, "params": 5, "steps": 500}, "two things"), ({"width": 24, "steps": 500, "flops": 1e11}, "two things"),
    ({"width": "24", "steps": 500}, "width must be a number"), ({"width": True, "steps": 500}, "width must be a number"),
    ({"width": float("nan"), "steps": 500}, "width must lie above 0"), ({"width": 24, "steps": -1}, "steps must lie above 0"),
    ({"params": 1e99, "steps": 500}, "params must lie above 0"), ({"width": 24, "tokens": 1000}, "at least one step"), ({"width": 24, "flops": 1}, "do not pay"),
    ({"width": 24, "steps": 500, "seed": 3}, "seed must be one of 0, 1, 2"), ({"width": 24, "steps": 500, "seed": "0"}, "seed must be"),
    ({"width": 4, "steps": 500}, "sizes go from 864"), ({"width": 24, "steps": 499}, "lengths from 500"), ({"width": 8, "steps": 17000}, "16,000 steps"),
    ({"width": 48, "steps": 4000}, "none above"), ({"width": 1e6, "steps": 16000}, "none above"), ({"params": [1], "steps": 500}, "must be a number"),
])
def test_what_is_not_answered_is_one_line_and_free(words, said):
    service = Service.local("ann", RICH)
    with pytest.raises(UserError, match=said) as refused:
        service.train(**words)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 250
    assert service.account.spent == 0 and service.account.answers == 0


def test_an_account_can_be_spent_to_the_last_flop_and_no_further():
    recipe = ladder().surface.recipe
    one, two = recipe.training(width=12, steps=1000), recipe.training(width=16, steps=500)
    service = Service.local("ann", recipe.flops(one) + recipe.flops(two))
    first = service.train(width=12, steps=1000)
    assert first.left == recipe.flops(two) == service.account.left
    with pytest.raises(Refusal, match="are left") as no:
        service.train(width=16, steps=501)
    assert no.value.status == 402
    assert service.train(width=16, steps=500).left == 0
    with pytest.raises(Refusal, match="0 of"):
        service.train(width=6, steps=500)
    assert (service.account.spent, service.account.answers) == (first.C + recipe.flops(two), 2)
    table = service.table()
    assert table.C.sum() == service.account.spent and (table.C == 6 * table.N * table.D).all()


def test_the_same_training_is_paid_once():
    service = Service.local("ann", RICH)
    first = service.train(**REAL)
    assert service.train(params=first.N, tokens=first.D) == first and service.account.spent == first.C
    assert service.train(**REAL, seed=1).loss != first.loss and service.account.spent == 2 * first.C


def test_an_id_stands_for_one_training():
    desk = Desk(ladder(), {"ann": RICH, "bob": RICH}, Ledger())
    first = desk.ask("ann", "x", 13824, 2000)
    assert desk.ask("ann", "x", 13824, 2000) == first
    with pytest.raises(Refusal, match="was used for another training") as no:
        desk.ask("ann", "x", 13824, 2001)
    assert no.value.status == 409
    assert desk.ask("bob", "x", 13824, 2001).left == RICH - 6 * 13824 * 2001 * 1024
    for id in ("", "a b", "x" * 65, 7, None, "a\nb"):
        with pytest.raises(Refusal, match="id must be"):
            desk.ask("ann", id, 13824, 2000)


def test_threads_that_race_for_the_last_flops_do_not_overdraw():
    cost = 6 * 6144 * 500 * 1024
    desk, told = Desk(ladder(), {"ann": 10 * cost}, Ledger()), []

    def ask(i):
        for k in range(3):
            try:
                told.append(desk.ask("ann", f"{i}-{k}", 6144, 500))
            except Refusal as no:
                assert no.status == 402

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.left for answer in told) == [k * cost for k in range(10)]


def test_budgets_that_are_none_are_refused():
    for budget in (0, -1, float("nan"), "lots", True, 1e30):
        with pytest.raises(UserError, match="budget must"):
            Service.local("ann", budget)


# --- the log ------------------------------------------------------------------------------------------------------


def kept(folder):
    return [json.loads(line) for line in (folder / NAME).read_text(encoding="utf-8").splitlines()]


def test_an_account_comes_back_from_its_log(tmp_path):
    service = Service.local("zoë", log=tmp_path)
    service.train(**REAL)
    with pytest.raises(Refusal):
        service.train(width=200, steps=500)
    service.submit(HERE.to_dict())
    again = Service.local("zoë", log=tmp_path)
    assert again.account == service.account and again.table().equals(service.table())
    assert again.train(**REAL).left == again.account.left
    assert [entry["kind"] for entry in kept(tmp_path)] == ["answer", "refused", "forecast"]
    with pytest.raises(Refusal, match="cannot be written"):
        service.train(width=6, steps=500)  # the log is the later one's


@pytest.mark.parametrize("torn", [b'{"time": "2000', b"\0" * 40, b'{"student": "ann", "kind": "answer"}', b"\xff\n", b"[]\n"])
def test_a_damaged_last_line_is_cut_off_and_any_other_is_not_passed_over(tmp_path, torn):
    answer = Service.local("ann", log=tmp_path).train(**REAL)
    ledgers._open.popitem()[1].close()
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole + torn)
    service = Service.local("ann", log=tmp_path)
    assert (tmp_path / NAME).read_bytes() == whole and service.account.spent == answer.C
    service.train(width=6, steps=500)
    assert len(kept(tmp_path)) == 2
    (tmp_path / NAME).write_bytes(torn.rstrip(b"\n") + b"\n" + whole)
    with pytest.raises(UserError, match="line 1 "):
        Service.local("ann", log=tmp_path)


def test_what_cannot_be_kept_is_not_answered(tmp_path, monkeypatch):
    service = Service.local("ann", log=tmp_path)
    service.train(**REAL)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledgers.os, "fsync", full)
    with pytest.raises(Refusal, match="No space left") as no:
        service.train(**BETWEEN)
    assert no.value.status == 503 and service.account.answers == 1
    monkeypatch.undo()
    with pytest.raises(Refusal, match="cannot be written"):
        service.train(**BETWEEN)
    again = Service.local("ann", log=tmp_path)
    assert again.train(**BETWEEN).loss > 0 and again.account.answers == 2


def test_a_log_has_one_writer(tmp_path):
    Service.local("ann", log=tmp_path)
    other = subprocess.run([sys.executable, "-c", f"from minitransformer.capstone.ledger import Ledger; from pathlib import Path; Ledger(Path({str(tmp_path)!r}))"],
                           capture_output=True, text=True, cwd=ROOT)
    assert other.returncode and "is in use" in other.stderr


# --- accounts -----------------------------------------------------------------------------------------------------


def test_accounts_are_made_once(tmp_path):
    path = tmp_path / "class.csv"
    first = accounts.add(path, ["ann", "Bob B.", "ann"], 5)
    again = accounts.add(path, ["ann", "zoë"], 7)
    assert [(entry.student, entry.budget) for entry in again] == [("ann", 5), ("Bob B.", 5), ("zoë", 7)]
    assert again[:2] == first and accounts.load(path) == again and len({entry.token for entry in again}) == 3
    assert os.name != "posix" or path.stat().st_mode & 0o77 == 0
    assert again.student(again[2].token) == "zoë"
    assert not any(again.student(token) for token in ("", again[0].token[:-1], again[0].token + " ", "é"))


@pytest.mark.parametrize("text, said", [
    ("name,token\nann,x\n", "line 2 .* is no account"), ("student,token,budget\nann,0123456789abcdef,many\n", "whole number of FLOPs"),
    ("student,token,budget\nann,short,5\n", "at least 16"), ("student,token,budget\n;,0123456789abcdef,5\n", "student's name"),
    ("student,token,budget\nann,0123456789abcdef,5\nbob,0123456789abcdef,5\n", "same token twice"), ("student,token,budget\nann\n", "is no account"),
])
def test_a_file_that_holds_no_accounts_is_named(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        accounts.load(tmp_path / "a.csv")
    with pytest.raises(UserError, match="cannot read"):
        accounts.load(tmp_path / "none.csv")


# --- the server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path):
    book = accounts.add(tmp_path / "class.csv", ["ann", "bob"], 10**12)
    server = bind("127.0.0.1", 0, Desk(ladder(), book.budgets, Ledger(tmp_path / "log")), book)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def raw(server, text: bytes) -> tuple[int, dict]:
    """What comes back for these bytes: the status and the answer."""
    with socket.create_connection(server.server_address, timeout=10) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        reply = b""
        while part := line.recv(65536):
            reply += part
    head, _, body = reply.partition(b"\r\n\r\n")
    assert body.count(b"\n") == 1
    return int(head.split()[1]), json.loads(body)


def post(server, body: bytes, path="/v1/train", method="POST", token=None, more=b"") -> tuple[int, dict]:
    token = server.accounts[0].token if token is None else token
    return raw(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n".encode()
               + more + b"\r\n" + body)


def test_a_class_gets_the_same_answers_by_the_same_calls(served):
    ann, bob = (Service.remote(served.url, entry.token) for entry in served.accounts)
    alone = Service.local("ann", 10**12)
    for call in (lambda s: s.terms, lambda s: s.train(**REAL), lambda s: s.train(**BETWEEN, seed=2), lambda s: s.train(width=32, flops=1e11),
                 lambda s: s.price(width=30, steps=700), lambda s: s.account, lambda s: s.submit(HERE.to_dict())):
        assert call(ann) == call(alone)
    assert ann.table().equals(alone.table()) and str(ann.terms) == str(alone.terms)
    assert bob.account.spent == 0 and served.desk.forecast("ann") == HERE and served.desk.forecast("bob") is None
    with pytest.raises(Refusal, match="none above"):
        bob.train(width=90, steps=16000)


@pytest.mark.parametrize("body, options, status", [
    (b"{}", {"token": "wrong"}, 401), (b"{}", {"token": "x" * 300}, 401), (b"{}", {"token": "\xe9"}, 401), (b"{}", {"path": "/v1/else"}, 404),
    (b"", {}, 400), (b"[1]", {}, 400), (b"{", {}, 400), (b"\xff", {}, 400), (b"[" * 4000, {}, 400), (b"{}", {}, 400),
    (b'{"id": "a", "params": NaN, "steps": 500}', {}, 400), (b'{"id": "a", "params": 13824, "steps": 500, "loss": 1}', {}, 400),
    (b'{"id": "a", "params": 13824.5, "steps": 500}', {}, 422), (b'{"id": "a", "params": "13824", "steps": 500}', {}, 422),
    (b'{"id": "a", "params": 1e400, "steps": 500}', {}, 422), (b'{"id": "a", "params": 864, "steps": 500, "seed": []}', {}, 422),
    (b'{"id": "a", "params": ' + b"9" * 4000 + b', "steps": 500}', {}, 422), (b'{"id": {}, "params": 864, "steps": 500}', {}, 400),
    (b"x" * (LONGEST_BODY + 1), {}, 413), (b"{}", {"method": "PUT"}, 501), (b"{}", {"more": b"Transfer-Encoding: chunked\r\n"}, 411),
    (b"{}", {"more": b"X: " + b"y" * 70000 + b"\r\n"}, 431), (b'{"params": 1}', {"path": "/v1/forecast"}, 422), (b"", {"method": "GET"}, 404),
    (b'{"params": 1, "best": [1, 2, 3], "oversized": [1, 1, 1], "dearest": [1, 1, 1e999]}', {"path": "/v1/forecast"}, 422),
])
def test_what_the_server_refuses_is_one_line_of_json_and_costs_nothing(served, body, options, status):
    found, answer = post(served, body, **options)
    assert (found, list(answer)) == (status, ["error"])
    assert answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 250
    assert served.desk.account("ann").spent == 0


def test_a_fault_of_the_server_is_told_and_charges_nothing(served, monkeypatch, capsys):
    monkeypatch.setattr(Surface, "loss", lambda *_: 1 / 0)
    assert post(served, b'{"id": "a", "params": 13824, "steps": 500}')[0] == 500
    assert "ZeroDivisionError" in capsys.readouterr().err and served.desk.account("ann").spent == 0


@pytest.mark.parametrize("length, status", [("-1", 411), ("4.0", 411), ("", 411), ("4097", 413), ("0" * 20 + "99999999", 413), ("9" * 5000, 413)])
def test_a_length_is_a_number_and_small(served, length, status):
    text = f"POST /v1/train HTTP/1.1\r\nAuthorization: Bearer {served.accounts[0].token}\r\nContent-Length: {length}\r\n\r\n"
    assert raw(served, text.encode())[0] == status


def test_broken_requests_do_not_stop_the_server(served):
    assert raw(served, b"nonsense\r\n\r\n")[0] == 400
    with socket.create_connection(served.server_address) as line:
        line.sendall(b"POST /v1/train HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")  # and goes away
    silent = [socket.create_connection(served.server_address) for _ in range(20)]
    assert Service.remote(served.url, served.accounts[0].token).train(**REAL).left < 10**12
    for line in silent:
        line.close()


def test_a_service_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("minitransformer.capstone.service.PATIENCE", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=f"no answer from http://127.0.0.1:{port}.*nothing is lost"):
        Service.remote(f"http://127.0.0.1:{port}", "token")
    for url, token in (("ftp://x", "t"), ("127.0.0.1:1", "t"), ("http://", "t"), ("http://x:1", ""), ("http://x:1", "a\nb"), ("http://x:yy", "t")):
        with pytest.raises(UserError, match="a service has an address"):
            Service.remote(url, token)


# --- fifty students and a kill -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def load():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield import_module("capstone_load")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def attacked(load, tmp_path_factory):
    there, told, _ = load.attack(tmp_path_factory.mktemp("class"), threads=50, n_accounts=25, questions=6, kills=1)
    yield there, told
    there.kill()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_fifty_students_and_a_kill_in_mid_load_lose_and_overdraw_nothing(load, attacked):
    there, told = attacked
    assert load.problems(there, told) == []
    refused = [status for t in told for status in t.refused]
    assert set(refused) == {402} and sum(map(len, (t.answers for t in told))) > 150
    assert "was damaged and is cut off" in (there.folder / "server.err").read_text()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("change, said", [
    (lambda lines: lines[1:], "told and is lost"),
    (lambda lines: [*lines, lines[-1]], "charged twice"),
    (lambda lines: [*lines, {**lines[-1], "id": "other"}], "never told"),
    (lambda lines: [{**lines[0], "loss": 9.9}, *lines[1:]], "another one in the log"),
    (lambda lines: [*lines, {**lines[-1], "id": "other", "C": 10**12}], "overdrawn"),
])
def test_a_log_that_is_wrong_would_be_noticed(load, attacked, change, said):
    there, told = attacked
    whole = (there.log / NAME).read_text()
    lines = [entry for entry in map(json.loads, whole.splitlines()) if entry["kind"] == "answer"]
    try:
        (there.log / NAME).write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
        assert any(said in problem for problem in load.problems(there, told))
    finally:
        (there.log / NAME).write_text(whole)


# --- forecasts ----------------------------------------------------------------------------------------------------


def perfect():
    truth = ladder().truth
    return Forecast(truth.size, *(Guess(truth.losses[name], truth.losses[name], truth.losses[name]) for name in LOSSES))


def test_the_truth_gets_all_points_and_distance_costs_them_by_degrees():
    assert sum(POINTS.values()) == 100 and score(perfect()).points == pytest.approx(100)
    sizes = [score(replace(perfect(), params=factor * perfect().params)).parts["size"] for factor in (1, 1.5, 2, 3, 4, 10)]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] > 27 and sizes[3] > 0 and sizes[-1] == 0
    best = perfect().best.value
    off = lambda share: score(replace(perfect(), best=Guess(*[best * (1 + share)] * 3)))
    assert [off(share).parts["best"] for share in (0.05, -0.05, 0.1, 0.2)] == pytest.approx([12.5, 12.5, 0, 0])
    assert not off(0.05).held["best"] and off(0.05).parts["best interval"] == 0
    wide = score(replace(perfect(), best=Guess(best, best * math.exp(-0.1), best * math.exp(0.1))))
    assert wide.held["best"] and wide.parts["best interval"] == pytest.approx(7.5)
    assert "100.0 of 100 points" in str(score(perfect().to_dict()))


def test_who_says_what_they_believe_scores_best():
    """Drawn from a normal belief, the interval that holds 95 % of it has the lowest mean score, narrower and wider ones more."""
    truths = np.exp(0.3 + 0.03 * np.random.default_rng(0).standard_normal(20_000))
    mean = {factor: np.mean([interval_score(Guess(1.3, math.exp(0.3 - 0.0588 * factor), math.exp(0.3 + 0.0588 * factor)), t) for t in truths])
            for factor in (0.5, 0.8, 1, 1.25, 2)}
    assert min(mean, key=mean.get) == 1


@pytest.mark.parametrize("change, said", [
    ({"params": None}, "params must be"), ({"params": -1}, "params must lie"), ({"best": (1.4, 1.5, 1.6)}, "in this order"), ({"best": 1.4}, "three numbers"),
    ({"best": (1.4, "a", 1.5)}, "best must be a number"), ({"dearest": (1.0, 0.0, 2.0)}, "above 0"), ({"more": 1}, "nothing else"), ({"oversized": (1, 1)}, "three numbers"),
])
def test_a_forecast_that_is_none_is_refused(change, said):
    with pytest.raises(UserError, match=said):
        Service.local("ann").submit({**HERE.to_dict(), **change})


def test_a_sensible_ladder_scores_more_than_one_size():
    strategies = subprocess.run([sys.executable, "benchmarks/capstone_strategies.py", "--students", "2"], cwd=ROOT, capture_output=True, text=True)
    assert strategies.returncode == 0, strategies.stderr
    points = {line[:10].strip(): float(line[10:16]) for line in strategies.stdout.splitlines()[2:]}
    assert list(points) == ["random", "one size", "one large", "ladder", "own slope"]
    assert points["ladder"] > max(points["one size"], points["own slope"]) + 20


# --- the command line -----------------------------------------------------------------------------------------------


def command(*words) -> tuple[str, str]:
    """What the command printed, and the problem that a user would read in one line."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, UserError):
        raise done.exception
    return done.stdout, str(done.exception or "")


def test_a_class_is_made_and_marked_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("bob\nZoë K.\n\n", encoding="utf-8")
    made, wrong = command("accounts", "ann", "--from", "names.txt", "--file", "class.csv", "--budget", "2e11")
    book = accounts.load(tmp_path / "class.csv")
    assert not wrong and [entry.student for entry in book] == ["ann", "bob", "Zoë K."] and set(book.budgets.values()) == {2 * 10**11}
    assert made.splitlines()[1] == f"ann,{book[0].token},{2 * 10**11}"
    ledger = Ledger(tmp_path / "log")
    desk = Desk(ladder(), book.budgets, ledger)
    answer = desk.ask("ann", "1", 6144, 500)
    desk.submit("ann", HERE.to_dict())
    desk.submit("bob", {**HERE.to_dict(), "params": 1e9})
    desk.submit("bob", perfect().to_dict())
    marked, wrong = command("marks", "--accounts", "class.csv", "--log", "log", "--csv", "marks.csv", "--json")
    ann, bob, zoe = json.loads(marked)
    assert not wrong and (ann["spent"], ann["trainings"], ann["points"]) == (answer.C, 1, round(score(HERE).points, 1))
    assert (bob["forecasts"], bob["points"], bob["held"]) == (2, 100.0, 3) and (zoe["forecasts"], zoe["points"]) == (0, 0.0)
    assert Path("marks.csv").read_text(encoding="utf-8").count("\n") == 4
    assert "of the class's 95 % intervals hold the truth" in command("marks", "--accounts", "class.csv", "--log", "log")[0]


def test_what_the_commands_cannot_do_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    accounts.add(tmp_path / "class.csv", ["ann"], 5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for words, said in (
            (("serve", "--accounts", "class.csv", "--log", "log", "--port", port), f"cannot listen on 127.0.0.1:{port}"),
            (("serve", "--accounts", "none.csv", "--log", "log"), "cannot read none.csv"),
            (("serve", "--accounts", "class.csv", "--log", "class.csv"), "cannot keep a log in class.csv"),
            (("marks", "--accounts", "class.csv", "--log", "else"), "there is no log in else"),
            (("accounts",), "name at least one student"), (("accounts", "--from", "none.txt"), "there are no names in none.txt"),
            (("accounts", "a,b"), "a student's name has"), (("accounts", "ann", "--budget", "lots"), "--budget must be a number"),
        ):
            assert said in command(*words)[1], words


def test_answers_are_plain_numbers():
    """What goes over the wire and into the log is JSON without loss."""
    answer = asdict(Service.local("ann").train(**BETWEEN))
    assert json.loads(json.dumps(answer)) == answer
