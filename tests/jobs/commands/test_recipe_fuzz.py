"""Recipes broken at random: each ends, soon, in lines that say what is wrong."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from command_line import call

from jobs import cli

RECIPES = sorted((Path(cli.__file__).parent / "recipes").glob("*.yaml"))
#: The most characters of a line that says what is wrong, and seconds of work until all are said.
LINE, SECONDS = 500, 5.0
#: What a value is replaced by, as YAML.
VALUES = [
    "",
    "null",
    "[]",
    "{}",
    "''",
    "' '",
    "-1",
    "0",
    "1.5",
    ".nan",
    ".inf",
    "-.inf",
    "1e400",
    "true",
    "off",
    "[[[]]]",
    "{a: {b: {c: [1, {}]}}}",
    "2026-13-45",
    "2026-02-30 25:61",
    "12:99",
    "19:00",
    "!!float abc",
    "!!int 1x",
    "!!timestamp soon",
    "!!binary '%%'",
    "!!python/name:os.system",
    "!!python/object/apply:os.mkdir [x]",
    "!own {a: 1}",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "&a [*a]",
    "*nowhere",
    "<<",
    "=",
    "'a: b'",
    '"\\0"',
    '"\\ud800"',
    '"\\e[2J"',
    "'[/red]'",
    "../../etc",
    "/dev/null",
    "/",
    "~",
    "a" * 300,
    "'" + "b c " * 4000 + "'",
    "9" * 300,
    "9" * 5000,
    "99999999999999999999",
    "[" + "1, " * 3000 + "1]",
    "[" * 25 + "]" * 25,
    "[" * 4000 + "]" * 4000,
    "{a: " * 2000 + "1" + "}" * 2000,
    "? [a, b]\n: c",
    "- x\n- y",
    "|\n  text",
    "each_task",
    "icl18",
    "'1'",
    "1_000",
    "0x10",
    "0o17",
    "+5",
    "\u202e",
    "\U0001f600" * 50,
    "reference/llama",
]


@dataclass(frozen=True)
class Broken:
    """A recipe that something was done to."""

    what: str
    content: bytes


def leaves(root: yaml.Node) -> list[yaml.Node]:
    """Every key and value of a recipe, each once however often an anchor repeats it."""
    found: dict[int, yaml.Node] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for child in node.value if isinstance(node, yaml.CollectionNode) else ():
            for part in child if isinstance(child, tuple) else (child,):
                if id(part) not in found:
                    found[id(part)] = part
                    waiting.append(part)
    return list(found.values())


def of_a_node(text: str, rng: random.Random) -> Broken:
    node = rng.choice(leaves(yaml.compose(text)))
    start, end = node.start_mark.index, node.end_mark.index
    old = text[start:end]
    new, what = rng.choice(
        [
            *[(rng.choice(VALUES), "replaced")] * 6,
            (old[: len(old) // 2] + rng.choice("xyz_") + old[len(old) // 2 + 1 :], "misspelt"),
            (old + old, "twice"),
            ("", "dropped"),
            (old[::-1], "reversed"),
            (f"&x {old}", "anchored"),
            (f"[{old}, {old}]", "listed"),
            (f"{{{old}: {old}}}", "mapped"),
            (f'"{old}', "unclosed"),
        ]
    )
    return Broken(
        f"{what} {old[:40]!r} by {new[:40]!r}",
        (text[:start] + new + text[end:]).encode("utf-8", "surrogatepass"),
    )


def of_a_line(text: str, rng: random.Random) -> Broken:
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    new, what = rng.choice(
        [
            ([lines[at]] * 2, "line twice"),
            ([], "line dropped"),
            (["\t" + lines[at]], "tab"),
            ([" " + lines[at]], "indented"),
            ([lines[at], "serch: {}"], "key added"),
            ([lines[at], "- 1"], "list added"),
            ([lines[at], "---"], "two documents"),
            ([lines[at], "3: 4", "[a]: b", "null: c"], "odd keys"),
            ([lines[at], f"{'k' * 300}: 1"], "long key"),
            ([lines[at], "%"], "directive"),
            ([lines[at][: len(lines[at]) // 2]], "line cut"),
            ([lines[at], f"name: {'n' * 300}"], "long name"),
            ([lines[at], "attribution: &a {<<: *a}"], "merged with itself"),
        ]
    )
    return Broken(
        f"{what} at {lines[at][:40]!r}", "\n".join([*lines[:at], *new, *lines[at + 1 :]]).encode()
    )


def of_bytes(text: str, rng: random.Random) -> Broken:
    content = text.encode()
    at = rng.randrange(len(content))
    what, new = rng.choice(
        [
            ("empty", b""),
            ("blank", b" \n\n"),
            ("mark in front", b"\xef\xbb\xbf" + content),
            ("CRLF", content.replace(b"\n", b"\r\n")),
            ("UTF-16", text.encode("utf-16")),
            ("binary", bytes(rng.randrange(256) for _ in range(400))),
            ("a byte", content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]),
            ("cut", content[:at]),
            ("NUL", content[:at] + b"\0" + content[at:]),
            ("comment", b"# nothing"),
            ("list", b"- a\n- b\n"),
            ("text", b"hello"),
            ("huge", b"name: " + b"x" * 2_000_000),
            ("deep", b"a:\n" + b"".join(b" " * i + b"- \n" for i in range(1, 200))),
            (
                "laughs",
                b"a: &a [x, x]\n"
                + b"".join(
                    b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9))
                    for c in b"bcdefghi"
                )
                + content,
            ),
            (
                "chain",
                b"a0: &a0 [x]\n"
                + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 3000))
                + content,
            ),
        ]
    )
    return Broken(what, new)


def broken(seed: int) -> Broken:
    """The recipe of a seed, with one to three things done to it."""
    rng = random.Random(seed)
    text = RECIPES[seed % len(RECIPES)].read_text()
    kinds: list[Callable[[str, random.Random], Broken]] = (
        [of_a_node] * 6 + [of_a_line] * 2 + [of_bytes]
    )
    made = rng.choice(kinds)(text, rng)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        try:
            made2 = rng.choice(kinds[:-1])(made.content.decode(), rng)
        except (yaml.YAMLError, ValueError, IndexError, RecursionError):
            break
        made = Broken(f"{made.what}, {made2.what}", made2.content)
    return made


def wrong(made: Broken, folder: Path, capfd: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how ``prunelib validate`` ends on a recipe, or ``None``."""
    path = folder / "r.yaml"
    path.write_bytes(made.content)
    capfd.readouterr()
    start = time.process_time()
    try:
        code = call("validate", path)
    except BaseException as error:  # what a user would see as a traceback
        return f"{type(error).__name__}: {str(error)[:300]}"
    seconds, said = time.process_time() - start, capfd.readouterr()
    lines = said.err.splitlines()
    if seconds > SECONDS:
        return f"took {seconds:.1f} s"
    if code == 0:
        return None if "fine" in said.out and not lines else f"fine, but said {said.err[:300]!r}"
    if code != 2 or not lines or said.out:
        return f"exit code {code}, said {said.err[:300]!r} {said.out[:100]!r}"
    bad = [
        line
        for line in lines
        if len(line.replace(str(path), "")) > LINE
        or not line.startswith("error: ")
        or not line.isprintable()
        or re.search(r"https?://errors\.pydantic|Traceback|prunelib\.recipe", line)
    ]
    return f"line {bad[0][:300]!r} of {len(bad[0])} characters" if bad else None


def check(
    seeds: range, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = {
        seed: f"{made.what}: {reason}"
        for seed in seeds
        if (reason := wrong(made := broken(seed), folder, capfd))
    }
    assert not found, "\n".join(f"{seed}: {what}" for seed, what in found.items())


def test_broken_recipes_end_in_lines_that_say_what_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(range(60), tmp_path, capfd, monkeypatch)


@pytest.mark.long
def test_a_thousand_more_broken_recipes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(range(1000, 2200), tmp_path, capfd, monkeypatch)
