#!/usr/bin/env python3
"""Looks for an order of what `quorate chaos --history FILE` wrote in which every key behaves as one register.

It shares nothing with our own checker: no code, and no revisions (`revision`, `create`, `modified` and `version` are not looked at), only
who asked what when, values, and outcomes. What lines mean: docs/chaos.md, `history.jsonl`.

How it works. Each key is a register by itself: a history is linearizable if that of each key is (Herlihy and Wing, 3.3; the parts of a
transaction on several keys are looked at as if they had been calls of the same time). What a call did at a key is `Op`: one or more
alternatives, each of what it requires the key to hold and what it leaves there. `search` goes through the calls and returns of a key in
order of time, with all configurations that are possible: what the key holds and which of the open operations have been ordered
already. Operations are ordered only when one of them returns that has not been ordered yet: Wing and Gong's search with memoised
configurations, in the just-in-time form of Lowe ("Testing for linearizability", 2017, 4 and 5). As all configurations advance
together, whatever lies before a moment is forgotten: where no operation is open, they are just the values that are possible.

What it relies on:
* A call that ended before another began comes before it; if the microsecond is the same, either may be first.
* Keys hold nothing in the beginning, and nobody writes but in the history. Keys below `lease/` go by themselves and are left out.
* `fail` did not happen. `unknown` happened once at any time after it was asked, or never: it does not return.
What it does not see: docs/chaos.md, "Another checker".
"""
import argparse, bisect, json, random, sys, time
from collections import defaultdict
from math import inf
from typing import Any, NamedTuple


class Mark:
    """Says something that no value says; the value "nothing is there" is None."""
    def __init__(self, words): self.words = words
    def __repr__(self): return self.words


ANY = Mark("anything")        # required: nothing in particular
PRESENT = Mark("some value")  # required: any value, but not nothing
KEEP = Mark("no change")      # left: what was there
OTHER = Mark("other value")   # a value that nobody asks for
# Configurations looked at before a key is given up, some tens of seconds. Honest histories need few for each operation.
WORK_MAX = 1_000_000
# Operations looked at to shorten what is shown of a key that is wrong, some seconds; and how many are printed.
SHORTEN_MAX = 1_000_000
SHOWN_MAX = 60


class Call(NamedTuple):
    line: int
    client: int
    node: str
    kind: str
    start: int
    end: float  # inf for what is unknown
    branches: list  # for each course it may have taken: steps (first key, end of the range, what was found, what is left)


class Op(NamedTuple):
    start: int
    end: float
    alternatives: tuple  # pairs: required, left
    call: Call


class BadInput(Exception):
    pass


# Reading: lines to calls, calls to operations on single keys.

def read(file):
    for number, text in enumerate(file, 1):
        try:
            line = json.loads(text)
            if line["kind"] == "lease" or line["outcome"] == "fail":
                continue
            is_known = {"ok": True, "unknown": False}[line["outcome"]]
            if line["start_us"] > line["end_us"]:
                raise ValueError("it ends before it begins")
            end = line["end_us"] if is_known else inf
            branches = courses(line, line if is_known else None)
            yield Call(number, line["client"], line.get("node", "?"), line["kind"], line["start_us"], end, branches)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"line {number}: {type(error).__name__}: {error}") from None


def courses(asked, answer):
    """The steps of each course that an operation may have taken: one if it was answered."""
    if asked["kind"] != "txn":
        return [steps(asked, answer)]
    if answer is None:
        return [same(asked) + course for course in several(asked["then"])] + several(asked["else"])
    branch, answers = asked["then" if answer["succeeded"] else "else"], answer["answers"]
    if len(branch) != len(answers):
        raise ValueError("a transaction's answers are not as many as its operations")
    taken = [step for one, told in zip(branch, answers) for step in courses(one, told)[0]]
    return [same(asked) + taken if answer["succeeded"] else taken]


def several(branch):
    """The courses of operations one after the other of which none was answered: more than one if there are transactions among them."""
    every = [[]]
    for one in branch:
        # When the compares of an inner transaction are made is not in the format: they are ignored.
        inner = courses({**one, "compares": []} if one["kind"] == "txn" else one, None)
        every = [before + course for before in every for course in inner]
    return every


def same(txn):
    """A compare with a value that holds has read it. Others say nothing exact, or speak of revisions."""
    exact = [c for c in txn["compares"] if (c["of"], c["is"]) == ("value", "=") and "end" not in c]
    return [(c["key"], KEEP, {c["key"]: c["given"]}, KEEP) for c in exact]


def steps(asked, answer):
    """What an operation, and its answer if there is one, says: (first key, end, what was found there, what is left)."""
    kind, first, end = asked["kind"], asked["key"], asked.get("end", KEEP)  # KEEP: a single key
    found = ANY
    pairs = lambda listed: {pair["key"]: sys.intern(pair["value"]) for pair in listed}
    if kind in ("get", "range"):
        if answer is None or asked.get("serializable") or "at_revision" in asked:
            return []
        found = {first: answer["value"]} if kind == "get" and "value" in answer else pairs(answer["pairs"])
        return [(first, end, found, KEEP)]
    if kind == "put":
        if answer is not None and "previous" in answer:
            found = pairs([answer["previous"]] if answer["previous"] else [])
        # Without a value it leaves what is there.
        return [(first, end, found, KEEP if asked["value"] is None else sys.intern(asked["value"]))]
    if kind == "delete":
        if answer is not None and (answer["previous"] or answer["deleted"] == 0):
            found = pairs(answer["previous"])
        elif answer is not None and end is KEEP:
            found = PRESENT  # It removed something, and was not asked what.
        return [(first, end, found, None)]
    raise ValueError(f"unknown kind {kind!r}")


def by_key(calls):
    """The operations of every key that anybody named."""
    known = set()
    for call in calls:
        for first, end, found, _ in (step for course in call.branches for step in course):
            known.update([first] if end is KEEP else [], found if isinstance(found, dict) else [])
    names = sorted((key for key in known if not key.startswith("lease/")), key=str.encode)
    encoded = [name.encode() for name in names]
    place = {name: at for at, name in enumerate(names)}
    keys, shared = {name: [] for name in names}, {}

    def concerned(first, end):
        if end is KEEP:
            return [first] if first in place else []
        until = len(names) if end is None else bisect.bisect_left(encoded, end.encode())
        return names[bisect.bisect_left(encoded, first.encode()):until]

    for call in calls:
        alternatives = defaultdict(list)  # by key
        for course in call.branches:
            at_key = defaultdict(list)
            for first, end, found, left in course:
                for key in concerned(first, end):
                    # A key of the range that is not among what was found was not there.
                    at_key[key].append((found.get(key) if isinstance(found, dict) else found, left))
            for key, done in at_key.items():
                alternatives[key].append(reduce(done))
        for key, all_of_it in alternatives.items():
            # None: it contradicts itself, so this alternative never happened. One that says nothing need not be ordered.
            possible = tuple(dict.fromkeys(one for one in all_of_it if one is not None))
            if call.end == inf:  # It may never have happened, which is the same as a course without a write.
                possible = tuple(one for one in possible if one[1] is not KEEP)
            if possible != ((ANY, KEEP),) and (possible or call.end < inf):
                # Many find the same, so it is kept once.
                keys[key].append(Op(call.start, call.end, shared.setdefault(possible, possible), call))
    return keys


def reduce(done):
    """Several steps at one key, which happen at once: what it held before, and what it holds then. None if that cannot be."""
    required, now = ANY, KEEP
    for found, left in done:
        if found is not ANY:
            held = required if now is KEEP else now
            if held is ANY or held is PRESENT and found is not None:
                required = found
            elif not fits(held, found):
                return None
        now = now if left is KEEP else left
    return required, now


def fits(held, required):
    return required is ANY or (held is not None if required is PRESENT else held == required)


# Searching: one key.

def search(ops, beginnings=(None,), work_max=WORK_MAX):
    """None if there is an order, else the operation at whose return there was none any more. TimeoutError: not decided."""
    asked_for = {required for op in ops for required, _ in op.alternatives}
    events, alternatives_of = [], []
    for at, op in enumerate(ops):
        alternatives_of.append(noticed(op, asked_for))
        if op.end == inf:
            if not alternatives_of[at]:
                continue
        else:
            events.append((op.end, 1, at))  # Of the same microsecond, calls come before returns: either may be first.
        events.append((op.start, 0, at))
    events.sort()
    # (what the key holds, which open operations are ordered) to the unknown ones that it took, as bitsets.
    now = {(value, 0): [0] for value in beginnings}
    reads, writes, never_end, bit_of, free, unknown_count, work = {}, {}, {}, {}, [], 0, 0
    bits = 0

    def settled(value, ordered):
        # Reading changes nothing, so what reads this value is ordered at once: not to be ordered later has only advantages.
        for bit, required in reads.items():
            if fits(value, required):
                ordered |= bit
        return ordered

    for _, is_return, at in events:
        if not is_return:
            possible = alternatives_of[at]
            if ops[at].end == inf:
                # Those that do the same are interchangeable, now that they have begun and as they never end.
                never_end.setdefault(possible, []).append(1 << unknown_count)
                unknown_count += 1
                continue
            if free:
                bit = free.pop()
            else:
                bit, bits = 1 << bits, bits + 1
            bit_of[at] = bit
            if len(possible) == 1 and possible[0][1] is KEEP:
                reads[bit] = required = possible[0][0]
                now = {(v, o | bit if fits(v, required) else o): masks for (v, o), masks in now.items()}
            else:
                writes[bit] = possible
            continue
        bit = bit_of.pop(at)
        after, before, todo = {}, {}, []
        for (value, ordered), masks in now.items():
            if ordered & bit:
                after[value, ordered] = masks
            else:
                before[value, ordered] = list(masks)
                todo += [(value, ordered, mask) for mask in masks]
        for value, ordered, mask in todo:  # It grows.
            work += 1
            if work > work_max:
                raise TimeoutError
            ways = [(alternatives, other, 0) for other, alternatives in writes.items() if not ordered & other]
            for alternatives, all_bits in never_end.items():
                ways += [(alternatives, 0, one) for one in all_bits if not mask & one][:1]
            for alternatives, other, one in ways:
                for required, left in alternatives:
                    if fits(value, required):
                        held = value if left is KEEP else left
                        then = settled(held, ordered | other)
                        front = after if then & bit else before
                        if is_better(front, (held, then), mask | one) and front is before:
                            todo.append((held, then, mask | one))
        if not after:
            return ops[at]
        now = {(value, ordered & ~bit): masks for (value, ordered), masks in after.items()}
        reads.pop(bit, None)
        writes.pop(bit, None)
        free.append(bit)
    return None


def noticed(op, asked_for):
    """
    The alternatives of an operation as others see them: values that no operation requires are the same to all of them. An unknown
    write of such a value is dropped: nobody who requires anything can lie between it and the next write, so an order with it is one
    without it, too. Unless somebody was told that there was some value: it may have been this one.
    """
    same = tuple((required, OTHER if left is not None and left is not KEEP and left not in asked_for else left)
                 for required, left in op.alternatives)
    if op.end < inf:
        return same
    return tuple(dict.fromkeys(one for one in same if one[1] in asked_for or one[1] is OTHER and PRESENT in asked_for))


def is_better(front, key, mask):
    """Adds a configuration, unless one with the same value took fewer of the unknown operations: what they could do yet, that one can."""
    masks = front.get(key)
    if masks is None:
        front[key] = [mask]
        return True
    if any(other & mask == other for other in masks):
        return False
    front[key] = [other for other in masks if other & mask != mask] + [mask]
    return True


# Showing what is wrong.

def explain(ops, failed):
    """
    The shortest window of time until `failed` returned that has no order, whatever the key held at its beginning, without what is not
    needed for that; and whether there is such a window. Else it takes all, and that there was nothing in the beginning.
    """
    ops = [op for op in ops if op.start <= failed.end]
    starts = sorted({op.start for op in ops}, reverse=True)
    since = lambda count: window(ops, starts[count - 1])
    high = 1
    while high < len(starts) and not has_no_order(since(high)):
        high *= 2
    low, high = high // 2, min(high, len(starts))
    kept, beginnings = since(high), None
    if not has_no_order(kept):
        low, kept, beginnings = high, ops, (None,)
    while high - low > 1:
        middle = (low + high) // 2
        low, high, kept = (low, middle, since(middle)) if has_no_order(since(middle)) else (middle, high, kept)
    # Then what is not needed goes, many at a time as long as that is possible.
    size, left_to_do = len(kept), SHORTEN_MAX
    while size := size // 2:
        at = 0
        while at < len(kept) and (left_to_do := left_to_do - len(kept)) > 0:
            rest = kept[:at] + kept[at + size:]
            if may_go(kept[at:at + size], rest) and has_no_order(rest, beginnings):
                kept = rest
            else:
                at += size
    return kept, beginnings is None


def window(ops, since):
    """What may have been ordered after all that returned before `since`."""
    kept = []
    for op in ops:
        if op.start < since <= op.end < inf:
            # It may have been ordered before, and then does nothing here.
            op = op._replace(alternatives=op.alternatives + ((ANY, KEEP),))
        if op.end >= since:
            kept.append(op)
    return kept


def has_no_order(ops, beginnings=None):
    """Whatever the key held, if no beginnings are given."""
    anything = {None, OTHER} | {required for op in ops for required, _ in op.alternatives} - {ANY, PRESENT}
    try:
        return search(ops, beginnings or anything, WORK_MAX // 10) is not None
    except TimeoutError:
        return False


def may_go(without, rest):
    """Nobody requires what these wrote: if the others have no order, all together have none."""
    required = {one for op in rest for one, _ in op.alternatives}
    return not any(left in required or PRESENT in required and left not in (None, KEEP) for op in without for _, left in op.alternatives)


def told(op):
    """An operation as JSON shows it."""
    show = lambda mark: str(mark) if isinstance(mark, Mark) else json.dumps(mark, ensure_ascii=False).replace("null", "nothing")
    words = []
    for required, left in op.alternatives:
        found = [] if required is ANY else [f"finds {show(required)}"]
        words.append(", ".join(found + ([] if left is KEEP else [f"leaves {show(left)}"])) or "did so before")
    end = None if op.end == inf else op.end
    return {"line": op.call.line, "client": op.call.client, "node": op.call.node, "kind": op.call.kind,
            "start_us": op.start, "end_us": end, "did": " or ".join(words) or "contradicts itself"}


def violation(key, ops, failed):
    kept, is_window = explain(ops, failed)
    required = {one for op in kept for one, _ in op.alternatives} - {ANY, PRESENT, None}
    shown = {op.call.line for op in kept}
    writers = [op for op in ops if required & {left for _, left in op.alternatives} - shown and op.call.line not in shown]
    nobody = required - {left for op in ops for _, left in op.alternatives}
    return {"key": key, "whatever_was_there": is_window, "window": [told(op) for op in sorted(kept, key=lambda op: op.start)],
            "writers": [told(op) for op in writers], "never_written": sorted(nobody)}


def print_violation(wrong):
    before = "whatever it held before" if wrong["whatever_was_there"] else "as it held nothing in the beginning"
    print(f"WRONG: key {wrong['key']}: there is no order of these, {before}:")
    for title, listed in (("", wrong["window"]), ("  What was found was left by:", wrong["writers"])):
        if listed and title:
            print(title)
        if len(listed) > SHOWN_MAX:
            print(f"  ... {len(listed) - SHOWN_MAX} more, which --json shows")
        for op in listed[-SHOWN_MAX:]:
            end = "unknown" if op["end_us"] is None else f"{op['end_us'] / 1e6:.6f}"
            print(f"  {op['start_us'] / 1e6:12.6f} to {end:>12} s  client {op['client']:<3} {op['node']:<5} line {op['line']:<7} {op['kind']:<6} {op['did']}")
    for value in wrong["never_written"]:
        print(f"  Nobody ever wrote {json.dumps(value)}.")


# Falsifying: is what is certainly wrong found?

def falsified(keys, random):
    """One key with its operations, changed so that they certainly have no order; None if this draw gives nothing."""
    key = random.choice(sorted(keys))
    ops = keys[key]
    over = {None: -inf}  # When the last that may have written a value had ended. Nothing was there in the beginning.
    for op in ops:
        over.update({left: max(op.end, over.get(left, -inf)) for _, left in op.alternatives if left is not KEEP})
    writes = [op for op in ops if op.end < inf and op.alternatives[0][1] is not KEEP]
    reads = [op for op in ops if op.end < inf and op.alternatives[0][0] not in (ANY, PRESENT)]
    if not writes or not reads:
        return None
    write = random.choice(writes)
    left = write.alternatives[0][1]
    # Whoever wrote it had ended before `write` began, so it was gone when `write` had ended.
    older = [value for value in over if value != left and over[value] < write.start]
    later = [op for op in reads if op.start > write.end]
    if not older or not later:
        return None
    finders = [op for op in reads if op.alternatives[0][0] == left]
    is_lost = left is not None and any(op.start > write.end for op in finders) and random.random() < 0.5
    if is_lost:  # As if the write had not been: who found its value finds what was there before.
        value, changed = max(older, key=lambda value: over[value]), finders
    else:
        value, changed = random.choice(older), [random.choice(later)]
    changed = {id(op) for op in changed}
    swap = lambda op: op._replace(alternatives=((value, op.alternatives[0][1]),)) if id(op) in changed else op
    return "lost write" if is_lost else "stale read", key, write.call.line, [swap(op) for op in ops]


def falsify(keys, count, seed, work_max):
    draws, made, missed = random.Random(seed), defaultdict(int), []
    for _ in range(count * 100):
        if sum(made.values()) == count:
            break
        if (one := falsified(keys, draws)) is None:
            continue
        what, key, line, ops = one
        made[what] += 1
        try:
            if search(ops, work_max=work_max) is None:
                missed.append({"what": what, "key": key, "write_line": line, "why": "taken for right"})
        except TimeoutError:
            missed.append({"what": what, "key": key, "write_line": line, "why": "not decided"})
    return {"asked": count, "seed": seed, "made": dict(made), "found": sum(made.values()) - len(missed), "missed": missed}


def check(calls, work_max=WORK_MAX):
    began, keys = time.monotonic(), by_key(calls)
    wrong, undecided = [], []
    for key, ops in keys.items():
        try:
            if (failed := search(ops, work_max=work_max)) is not None:
                wrong.append(violation(key, ops, failed))
        except TimeoutError:
            undecided.append(key)
    return keys, {"is_right": not wrong, "calls": len(calls), "unknown": sum(call.end == inf for call in calls), "keys": len(keys),
                  "operations": sum(map(len, keys.values())), "seconds": round(time.monotonic() - began, 2),
                  "undecided": undecided, "violations": wrong}


HELP = """
examples:
  quorate chaos --duration 10m --history history.jsonl
  scripts/linearizable.py history.jsonl                  # is there an order, for each key?
  scripts/linearizable.py history.jsonl --falsify 500    # and would it have been noticed if there were none?

A key that is wrong is shown with the shortest window of operations that cannot be put into any order: who asked when, what it found and
what it left there. "unknown" in the place of an end: no answer, so it happened at any time from then on, or never. `line` is that of FILE.

--falsify changes, in memory, one key at a time so that it is certainly wrong: a read finds what had been overwritten before it was
asked (stale read), or all that found a write's value find what was there before (lost write). Each has to be found.

ends with 0: right (keys that were not decided are counted, and named); 1: wrong, or something falsified was not found; 2: FILE is not such
a history, or nothing in it could be falsified."""


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Checks a history that `quorate chaos --history FILE` wrote for linearizability, one key at a time, without its revisions.",
        epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="the history, a JSON object a line (docs/chaos.md, history.jsonl)")
    parser.add_argument("--falsify", type=int, default=0, metavar="N", help="afterwards check N copies that are certainly wrong, and count those found")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of what is falsified (%(default)s)")
    parser.add_argument("--work-max", type=int, default=WORK_MAX, metavar="N", help="configurations of a key before it is called not decided (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(arguments)
    try:
        with open(options.file, encoding="utf-8") as file:
            calls = list(read(file))
        if not calls:
            raise BadInput("no call in it was answered or may have happened")
        keys, result = check(calls, options.work_max)
    except (OSError, UnicodeDecodeError, BadInput) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    code = 0 if result["is_right"] else 1
    if options.falsify > 0 and code == 0:
        copies = result["falsified"] = falsify(keys, options.falsify, options.seed, options.work_max)
        code = 1 if copies["missed"] else 0 if copies["made"] else 2
    if options.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
        return code
    for one in result["violations"]:
        print_violation(one)
    print("{calls} calls, {unknown} of them unknown; {operations} operations on {keys} keys: {seconds} s".format(**result))
    if result["undecided"]:
        print(f"NOT DECIDED, too many possibilities: {len(result['undecided'])} keys: {' '.join(result['undecided'])}")
    print("every key that was decided has an order" if result["is_right"] else f"{len(result['violations'])} keys have no order")
    if "falsified" in result:
        made = ", ".join(f"{count} with a {what}" for what, count in sorted(copies["made"].items())) or "none could be made"
        print(f"falsified copies: {made}; {copies['found']} of {sum(copies['made'].values())} were found (seed {options.seed})")
        for one in copies["missed"]:
            print("MISSED: {what} of key {key}, the write of line {write_line}: {why}".format(**one))
    return code


if __name__ == "__main__":
    sys.exit(main())
