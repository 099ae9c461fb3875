#!/usr/bin/env python3
"""Tests of linearizable.py: `python3 scripts/test_linearizable.py`.

Small histories by hand; thousands of drawn ones, compared with trying all orders; and histories of a simulated store, right ones
and ones of stores with a bug. `python3 scripts/test_linearizable.py simulate FILE [CALLS [KEYS [SEED [BUG]]]]` writes such a history.
"""
import contextlib, heapq, io, itertools, json, os, random, sys, tempfile, time, unittest

import linearizable
from linearizable import by_key, check, read


# Lines as `quorate chaos --history` writes them. A call of client `c` from `start` to `end`.

def call(start, end, asked, answer=None, outcome="ok", client=1):
    answer = answer if outcome == "ok" and answer is not None else {}
    return {"client": client, "node": "n1", "start_us": start, "end_us": end, "outcome": outcome, **asked, **answer}


def put(value, key="k"): return {"kind": "put", "key": key, "value": value}
def get(key="k"): return {"kind": "get", "key": key}
def delete(key="k"): return {"kind": "delete", "key": key}
def found(value): return {"value": value}
def pairs(**of): return [{"key": key, "value": value} for key, value in sorted(of.items())]
def removed(count, *previous): return {"deleted": count, "previous": [{"key": "k", "value": value} for value in previous]}
def compare(key, of, given, relation="="): return {"key": key, "of": of, "is": relation, "given": given}
def txn(then, otherwise=(), compares=()): return {"kind": "txn", "compares": list(compares), "then": list(then), "else": list(otherwise)}
def branch(succeeded, *answers): return {"succeeded": succeeded, "answers": list(answers)}


def checked(lines):
    return check(list(read(json.dumps(line) for line in lines)))[1]


class ByHand(unittest.TestCase):
    def right(self, *lines):
        result = checked(lines)
        self.assertTrue(result["is_right"], result)
        self.assertEqual(result["undecided"], [])

    def wrong(self, *lines):
        result = checked(lines)
        self.assertFalse(result["is_right"], lines)
        return result["violations"]

    def test_one_after_the_other(self):
        self.right(call(0, 1, get(), found(None)), call(2, 3, put("a")), call(4, 5, get(), found("a")))

    def test_a_stale_read(self):
        lines = [call(0, 1, put("a")), call(2, 3, put("b"), client=2), call(4, 5, get(), found("a"))]
        [wrong] = self.wrong(*lines)
        # Nobody needs the put of "a" to see that it is wrong, but who it was is said.
        self.assertEqual([op["line"] for op in wrong["window"]], [2, 3])
        self.assertEqual([op["line"] for op in wrong["writers"]], [1])

    def test_what_is_shown_has_all_that_could_have_written_what_was_found(self):
        [wrong] = self.wrong(call(0, 1, put("a")), call(2, 3, delete(), outcome="unknown"), call(4, 5, get(), found(None)),
                             call(6, 7, put("b", "j")), call(8, 9, get(), found("a")))
        self.assertEqual([op["line"] for op in wrong["window"]], [2, 3, 5])
        self.assertEqual([op["line"] for op in wrong["writers"]], [1])

    def test_a_read_that_goes_back(self):
        both = call(0, 9, put("a"))
        self.right(both, call(1, 2, get(), found(None), client=2), call(3, 4, get(), found("a"), client=2))
        self.wrong(both, call(1, 2, get(), found("a"), client=2), call(3, 4, get(), found(None), client=2))

    def test_a_lost_write(self):
        self.wrong(call(0, 1, put("a")), call(2, 3, get(), found(None)))
        self.wrong(call(0, 1, put("a")), call(2, 3, put("b")), call(4, 5, put("c"), {"previous": pairs(k="a")[0]}))

    def test_a_value_that_nobody_wrote(self):
        [wrong] = self.wrong(call(0, 1, put("a")), call(2, 3, get(), found("x")))
        self.assertEqual(wrong["never_written"], ["x"])
        [wrong] = self.wrong(call(0, 1, get(), found("x")))
        self.assertFalse(wrong["whatever_was_there"])

    def test_a_write_that_failed_did_not_happen(self):
        self.wrong(call(0, 1, put("a"), outcome="fail"), call(2, 3, get(), found("a")))
        self.right(call(0, 1, put("a"), outcome="fail"), call(2, 3, get(), found(None)))

    def test_an_unknown_write_that_is_seen_later(self):
        self.right(call(0, 1, put("a"), outcome="unknown"), call(2, 3, get(), found(None)), call(9, 10, get(), found("a")))
        self.wrong(call(8, 9, put("a"), outcome="unknown"), call(2, 3, get(), found("a")))

    def test_an_unknown_write_that_nobody_saw(self):
        self.right(call(0, 1, put("a"), outcome="unknown"), call(2, 3, get(), found(None)), call(4, 5, get(), found(None)))

    def test_an_unknown_write_that_is_seen_and_then_not(self):
        self.wrong(call(0, 1, put("a"), outcome="unknown"), call(2, 3, get(), found("a")), call(4, 5, get(), found(None)))
        self.wrong(call(0, 1, put("b")), call(2, 3, put("a"), outcome="unknown"), call(4, 5, get(), found("a")),
                   call(6, 7, put("c")), call(8, 9, get(), found("a")))

    def test_an_unknown_write_that_nobody_read_but_somebody_removed(self):
        self.right(call(0, 1, put("a"), outcome="unknown"), call(2, 3, delete(), removed(1)))
        self.wrong(call(0, 1, put("a"), outcome="unknown"), call(2, 3, delete(), removed(1)), call(4, 5, delete(), removed(1)))

    def test_concurrent_writes_in_either_order(self):
        writes = call(0, 9, put("a")), call(1, 8, put("b"), client=2)
        self.right(*writes, call(10, 11, get(), found("a")))
        self.right(*writes, call(10, 11, get(), found("b")))
        self.wrong(*writes, call(10, 11, get(), found("a")), call(12, 13, get(), found("b")))
        self.wrong(*writes, call(10, 11, get(), found(None)))

    def test_the_same_microsecond_is_either_order(self):
        self.right(call(0, 5, put("a")), call(5, 6, get(), found(None), client=2))
        self.wrong(call(0, 5, put("a")), call(6, 6, get(), found(None), client=2))

    def test_deletes(self):
        a = call(0, 1, put("a"))
        self.right(a, call(2, 3, delete(), removed(1, "a")), call(4, 5, get(), found(None)), call(6, 7, delete(), removed(0)))
        self.wrong(a, call(2, 3, delete(), removed(0)))
        self.wrong(a, call(2, 3, delete(), removed(1, "b")))
        self.wrong(a, call(2, 3, delete(), removed(1)), call(4, 5, get(), found("a")))

    def test_unknown_deletes_happen_once_at_any_time(self):
        a, unknown = call(0, 1, put("a")), call(2, 3, delete(), outcome="unknown")
        self.right(a, unknown, call(4, 5, get(), found("a")), call(6, 7, get(), found(None)))
        self.right(a, unknown, call(4, 5, put("b")), call(6, 7, get(), found(None)))
        twice = [call(4, 5, get(), found(None)), call(6, 7, put("b")), call(8, 9, get(), found("b")), call(10, 11, get(), found(None))]
        self.wrong(a, unknown, *twice)
        self.right(a, unknown, unknown, *twice)

    def test_which_of_two_unknown_calls_it_was_is_left_open(self):
        either = call(2, 3, txn([delete()], [put("z")]), outcome="unknown")
        gone = call(2, 3, delete(), outcome="unknown")
        for unknown in ([either, gone], [gone, either]):
            for last in ("z", "b"):
                self.right(call(0, 1, put("a")), *unknown, call(4, 5, get(), found(None)), call(6, 7, put("b")), call(8, 9, get(), found(last)))
            self.right(call(0, 1, put("a")), *unknown, call(4, 5, get(), found(None)), call(6, 7, put("b")), call(8, 9, get(), found(None)))
            self.wrong(call(0, 1, put("a")), *unknown, call(4, 5, get(), found(None)), call(6, 7, put("b")), call(8, 9, get(), found(None)),
                       call(10, 11, get(), found("z")))

    def test_a_transaction_is_the_branch_that_was_taken(self):
        both = txn([put("a")], [put("b")])
        self.right(call(0, 1, both, branch(True, {})), call(2, 3, get(), found("a")))
        self.wrong(call(0, 1, both, branch(True, {})), call(2, 3, get(), found("b")))
        self.right(call(0, 1, both, branch(False, {})), call(2, 3, get(), found("b")))

    def test_a_transaction_happens_at_once_and_in_its_order(self):
        own = txn([get(), put("b"), get()])
        self.right(call(0, 1, put("a")), call(2, 3, own, branch(True, found("a"), {}, found("b"))))
        self.wrong(call(0, 1, put("a")), call(2, 3, own, branch(True, found("b"), {}, found("b"))))
        self.wrong(call(0, 1, put("a")), call(2, 3, own, branch(True, found("a"), {}, found("a"))))
        self.wrong(call(0, 1, txn([put("a"), delete()]), branch(True, {}, removed(1))), call(2, 3, get(), found("a")))
        # Nobody sees half of it done.
        self.wrong(call(0, 9, own, branch(True, found("a"), {}, found("b"))), call(1, 2, put("a")), call(3, 4, put("c")),
                   call(5, 6, get(), found("a")))

    def test_a_compare_with_a_value_is_a_read(self):
        a, b, swap = call(0, 1, put("a")), call(2, 3, put("b")), txn([put("c")], [], [compare("k", "value", "a")])
        self.right(a, call(4, 5, swap, branch(True, {})))
        self.wrong(a, b, call(4, 5, swap, branch(True, {})))
        self.right(a, b, call(4, 5, swap, branch(False)))
        # Unknown, it can have happened only while there was an "a".
        self.wrong(a, b, call(4, 5, swap, outcome="unknown"), call(6, 7, get(), found("c")))

    def test_revisions_are_not_looked_at(self):
        strange = {"value": "a", "create": 9, "modified": 1, "version": 7, "revision": 3}
        self.right(call(0, 1, put("a"), {"revision": 99}), call(2, 3, get(), strange))

    def test_an_unknown_transaction_may_have_taken_either_branch(self):
        unknown = call(0, 1, txn([put("a")], [put("b"), {**txn([put("x", "j")], [put("y", "j")])}]), outcome="unknown")
        for value in (None, "a", "b"):
            self.right(unknown, call(2, 3, get(), found(value)))
        self.wrong(unknown, call(2, 3, get(), found("a")), call(4, 5, get(), found("b")))
        for value in (None, "x", "y"):
            self.right(unknown, call(2, 3, get("j"), found(value)))

    def test_a_range_reads_what_is_there_and_what_is_not(self):
        def over(first, end, **of): return {"kind": "range", "key": first, "end": end}, {"pairs": pairs(**of)}
        ka, kb = call(0, 1, put("1", "ka")), call(2, 3, put("2", "kb"))
        self.right(ka, kb, call(4, 5, *over("k", "l", ka="1", kb="2")))
        self.wrong(ka, kb, call(4, 5, *over("k", "l", ka="1")))
        self.right(ka, kb, call(4, 5, *over("k", "kb", ka="1")))
        self.wrong(ka, kb, call(4, 5, *over("ka", None, ka="1")))
        self.wrong(ka, kb, call(4, 5, *over("k", "l", ka="1", kb="2", kc="3")))
        self.right(ka, kb, call(4, 5, {"kind": "delete", "key": "k", "end": "l"}, {"deleted": 2, "previous": []}),
                   call(6, 7, *over("k", "l")))
        self.wrong(ka, kb, call(4, 5, {"kind": "delete", "key": "k", "end": "l"}, {"deleted": 2, "previous": pairs(ka="1", kb="1")}))

    def test_what_is_left_out(self):
        a, b = call(0, 1, put("a")), call(2, 3, put("b"))
        self.right(a, b, call(4, 5, {**get(), "serializable": True}, found("a")), call(6, 7, {**get(), "at_revision": 2}, found("a")))
        self.right(call(0, 1, put("a", "lease/1")), call(2, 3, get("lease/1"), found(None)),
                   {"kind": "lease", "lease": 1, "ttl_us": 5, "renewals_us": [], "told_gone_us": None, "revoked_us": None})


# Drawn histories: a store whose calls happen at some time between being asked and answered, or later, or never.

def perform(state, asked, taken=None):
    """Carries it out as a store would: the answer. `taken` decides the branch where no compare does."""
    key, kind = asked["key"] if "key" in asked else None, asked["kind"]
    concerned = [key] if "end" not in asked else sorted(k for k in state if key <= k and (asked["end"] is None or k < asked["end"]))
    there = [{"key": k, "value": state[k]} for k in concerned if k in state]
    if kind in ("get", "range"):
        return {"pairs": there} if kind == "range" else {"value": state.get(key)}
    if kind == "put":
        state[key] = asked["value"]
        return {"previous": there[0] if there else None} if asked.get("asks_previous") else {}
    if kind == "delete":
        for k in concerned:
            state.pop(k, None)
        return {"deleted": len(there), "previous": there if asked.get("asks_previous") else []}
    by_value = [state.get(c["key"]) == c["given"] for c in asked["compares"] if c["of"] == "value"]
    succeeded = all(by_value) and (taken is None or taken)
    return {"succeeded": succeeded, "answers": [perform(state, one) for one in asked["then" if succeeded else "else"]]}


def simulate(draws, calls, keys, clients, unknown, ask, bug=None):
    """Lines of a history. `ask(number, known)` draws a request; `known` is what keys held as far as anybody was told. Times are microseconds."""
    state, before, history, moments, asked_count = {}, {}, [], [], 0
    turns = [(draws.randrange(50), client) for client in range(1, clients + 1)]
    heapq.heapify(turns)
    lines, order = [], itertools.count()
    while asked_count < calls:
        start, client = heapq.heappop(turns)
        is_unknown, took = draws.random() < unknown, int(draws.expovariate(1 / 400)) + draws.randrange(3)
        moment = start + int(took * draws.random())
        if is_unknown:
            moment, took = start + int(draws.expovariate(1 / 20_000)), 3_000
        # Everything that happened until this is asked has been carried out, so that clients know what they were told.
        while moments and moments[0][0] < start:
            carry_out(heapq.heappop(moments)[2:], state, before, draws, bug)
        line = call(start, start + took, ask(asked_count, before), outcome="unknown" if is_unknown else "ok", client=client)
        lines.append(line)
        if not is_unknown or draws.random() < 0.5:
            heapq.heappush(moments, (moment, next(order), line))
        heapq.heappush(turns, (start + took + 1 + draws.randrange(200), client))
        asked_count += 1
    while moments:
        carry_out(heapq.heappop(moments)[2:], state, before, draws, bug)
    for line in lines:  # As the store writes it.
        for one in [line, *line.get("then", []), *line.get("else", [])]:
            one.pop("asks_previous", None)
    return lines


def carry_out(moment, state, before, draws, bug):
    """`before` has what keys held before their last change, or hold: what a store with a bug, or a client, believes."""
    [line] = moment
    old = dict(state)
    is_read = line["kind"] in ("get", "range")
    if bug == "lost" and line["kind"] == "put" and draws.random() < 0.002:
        answer = {}
    elif bug == "stale" and is_read and draws.random() < 0.01:
        answer = perform(dict(before), line)
    else:
        answer = perform(state, line, draws.random() < 0.7)
    changed = {key for key in old.keys() | state.keys() if old.get(key) != state.get(key)} if not is_read else ()
    for key in changed:
        before.pop(key, None)
        if key in old:
            before[key] = old[key]
    if line["outcome"] == "ok":
        line.update(answer)


def asker(draws, keys):
    """What clients of `quorate chaos` ask, more or less."""
    name = lambda number: f"key/{number // 10:02}/{number % 10}"

    def ask(number, known):
        key, which = name(draws.randrange(keys)), draws.random()
        group = {"key": f"key/{draws.randrange(keys // 10):02}/"}
        group["end"] = group["key"][:-1] + "0"
        if which < 0.35:
            return {**put(f"put {number}", key), "asks_previous": draws.random() < 0.25}
        if which < 0.75:
            return get(key)
        if which < 0.80:
            return {**delete(key), "asks_previous": draws.random() < 0.5}
        if which < 0.81:
            return {**delete(), **group, "asks_previous": True}
        if which < 0.84:
            return {"kind": "range", **group}
        if which < 0.92:
            return txn([put(f"swap {number}", key)], [get(key)], [compare(key, "value", known.get(key, "none"))])
        other = name(draws.randrange(keys))
        return txn([put(f"both {number}.1", key), get(other)], [{"kind": "range", **group}], [compare(other, "version", 2, "!=")])
    return ask


def large(calls=100_000, keys=200, seed=1, bug=None):
    draws = random.Random(seed)
    return simulate(draws, calls, keys, 8, 0.01, asker(draws, keys), bug)


def orders(lines):
    """Whether any order of all that was answered, with any of what is unknown, gives these answers: all are tried."""
    known = [line for line in lines if line["outcome"] == "ok"]
    unknown = [line for line in lines if line["outcome"] == "unknown"]
    end = lambda line: line["end_us"] if line["outcome"] == "ok" else float("inf")
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations(known + list(chosen)):
                if any(end(b) < a["start_us"] for a, b in itertools.combinations(order, 2)):
                    continue
                free = [line for line in order if line["kind"] == "txn" and line["outcome"] == "unknown"]
                for taken in itertools.product((True, False), repeat=len(free)):
                    if answers_fit(order, {id(line): which for line, which in zip(free, taken)}):
                        return True
    return False


def answers_fit(order, taken):
    state = {}
    for line in order:
        # Whether other compares than those with values hold is as it was told, or tried.
        answer = perform(state, line, line.get("succeeded", taken.get(id(line))))
        if line["outcome"] == "ok" and any(line[field] != told for field, told in answer.items()):
            return False
    return True


class Drawn(unittest.TestCase):
    def small(self, draws):
        def ask(number, known):
            which = draws.random()
            if which < 0.3:
                return {**put(f"{number}"), "asks_previous": draws.random() < 0.3}
            if which < 0.6:
                return get()
            if which < 0.8:
                return {**delete(), "asks_previous": True}
            if which < 0.85:
                return {"kind": "range", "key": "k", "end": "l"}
            compares = [compare("k", "value", known.get("k", "0"))] if draws.random() < 0.5 else [compare("k", "version", 1)]
            return txn([get(), put(f"{number}")], [put(f"{number}e")] if draws.random() < 0.5 else [], compares)

        lines = simulate(draws, draws.randrange(2, 7), 1, 3, 0.25, ask)
        for line in lines:
            # So few calls, so close to each other, that times are often equal.
            line["start_us"], line["end_us"] = line["start_us"] // 100, line["end_us"] // 100
            line["asks_previous"] = "previous" in line  # `perform` is to say it again, the checker does not look at it.
        return lines

    def test_the_same_as_trying_all_orders(self):
        draws, verdicts = random.Random(7), {True: 0, False: 0}
        for number in range(4_000):
            lines = self.small(draws)
            is_changed = draws.random() < 0.7
            gets = [line for line in lines if line["kind"] == "get" and line["outcome"] == "ok"]
            if is_changed and gets:
                draws.choice(gets)["value"] = draws.choice([None] + [str(n) for n in range(6)] + ["1e"])
            if is_changed and draws.random() < 0.3:
                line = draws.choice(lines)
                line["start_us"], line["end_us"] = line["start_us"] + 3, line["end_us"] + 3
            expected = orders(lines)
            verdicts[expected] += 1
            told = checked(lines)
            self.assertEqual(told["is_right"], expected, f"{number}:\n" + "\n".join(map(json.dumps, lines)))
            if not is_changed:
                self.assertTrue(expected, number)
        self.assertGreater(min(verdicts.values()), 500, verdicts)

    def test_no_window_of_a_right_history_is_wrong(self):
        draws, count = random.Random(8), 0
        for number in range(1_500):
            lines = self.small(draws)
            if not orders(lines):
                continue
            for ops in by_key(list(read(json.dumps(line) for line in lines))).values():
                for since in sorted({op.start for op in ops}):
                    kept = linearizable.window(ops, since)
                    self.assertFalse(linearizable.has_no_order(kept), (number, since, lines))
                    for size in range(1, len(kept)):
                        for without in itertools.combinations(kept, size):
                            rest = [op for op in kept if op not in without]
                            if linearizable.may_go(without, rest):
                                count += 1
                                self.assertFalse(linearizable.has_no_order(rest), (number, since, without, lines))
        self.assertGreater(count, 1_000)

    def test_what_is_shown_is_short(self):
        calls = list(read(json.dumps(line) for line in large(20_000, 20, 3, "stale")))
        keys, result = check(calls)
        self.assertGreater(len(result["violations"]), 10)
        for wrong in result["violations"]:
            self.assertTrue(wrong["whatever_was_there"] and 2 <= len(wrong["window"]) <= 8, wrong)

    def test_stores_with_bugs(self):
        for bug in ("stale", "lost"):
            self.assertFalse(checked(large(10_000, 20, 5, bug))["is_right"], bug)

    def test_a_large_history_and_falsified_copies(self):
        lines = list(map(json.dumps, large()))
        began = time.monotonic()
        keys, result = check(list(read(lines)))
        took = time.monotonic() - began
        copies = linearizable.falsify(keys, 300, 1, linearizable.WORK_MAX)
        print(f"\n{result['calls']} calls, {result['operations']} operations, {result['unknown']} unknown: {took:.1f} s; {copies}", file=sys.stderr)
        self.assertTrue(result["is_right"] and not result["undecided"], result["violations"])
        self.assertEqual((copies["found"], copies["missed"], sum(copies["made"].values())), (300, [], 300))
        self.assertEqual(len(copies["made"]), 2)

    def test_many_unknown_writes_of_few_keys_are_decided(self):
        draws = random.Random(2)
        lines = simulate(draws, 20_000, 10, 10, 0.1, asker(draws, 10))
        keys, result = check(list(read(map(json.dumps, lines))))
        self.assertTrue(result["is_right"], result["violations"])
        self.assertEqual(result["undecided"], [])

    def test_what_is_falsified_is_certainly_wrong(self):
        # So few calls that an overlap, or an unknown call, is often what makes a copy possible.
        draws, made = random.Random(4), 0
        for number in range(1_000):
            keys, result = check(list(read(map(json.dumps, self.small(draws)))))
            if keys:
                copies = linearizable.falsify(keys, 5, number, linearizable.WORK_MAX)
                made += sum(copies["made"].values())
                self.assertEqual(copies["missed"], [], number)
        self.assertGreater(made, 300)


class Command(unittest.TestCase):
    def run_it(self, text, *options):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "history.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                return linearizable.main([path, *options]), out.getvalue(), err.getvalue()

    def written(self, *lines):
        return "".join(json.dumps(line) + "\n" for line in lines)

    def test_how_it_ends(self):
        a, b = call(0, 1, put("a")), call(2, 3, put("b"))
        right, wrong = self.written(a, b, call(4, 5, get(), found("b"))), self.written(a, b, call(4, 5, get(), found("a")))
        code, out, _ = self.run_it(right, "--falsify", "10")
        self.assertEqual(code, 0, out)
        self.assertIn("10 of 10 were found", out)
        code, out, _ = self.run_it(wrong)
        self.assertEqual(code, 1)
        self.assertIn('leaves "b"', out)
        code, out, _ = self.run_it(wrong, "--json")
        self.assertEqual((code, json.loads(out)["violations"][0]["key"]), (1, "k"))
        code, out, _ = self.run_it(right, "--work-max", "0")
        self.assertEqual(code, 0)
        self.assertIn("NOT DECIDED", out)

    def test_what_is_no_history(self):
        bad = ["", "x\n", "[1]\n", '{"kind": "put"}\n', self.written(call(0, 1, put("a")))[:-10], self.written(call(2, 1, put("a"))),
               self.written(call(0, 1, {"kind": "other", "key": "k"})), self.written(call(0, 1, put("a"), outcome="maybe")),
               self.written(call(0, 1, txn([get()]), branch(True)))]
        for text in bad:
            code, _, err = self.run_it(text)
            self.assertEqual(code, 2, text)
            self.assertTrue(err, text)
        code, _, _ = self.run_it(self.written(call(0, 1, put("a"))), "--falsify", "1")
        self.assertEqual(code, 2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        numbers = [int(word) for word in sys.argv[3:6]]
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in large(*numbers, bug=sys.argv[6] if len(sys.argv) > 6 else None))
    else:
        unittest.main()
