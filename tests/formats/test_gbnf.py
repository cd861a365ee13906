"""GBNF is checked before llama.cpp sees it: what hangs or kills it is refused with a line and a reason."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gguf_maker import make_gguf

from cascade.errors import ConfigError
from cascade.formats.gbnf import check_grammar

GOOD = r"""
# a comment
root  ::= "a" list{1,3} ("x" | [^a-z\]\x41-] # inside a group
   | .)? name-2*
list ::= [0-9]+ "," |
   "é\n\"" {2}
name-2 ::= "{" root "}"
"""


def test_the_language_of_llama_cpp_is_taken() -> None:
    check_grammar(GOOD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rule 'root'"),
        ("a ::= [a]", "no rule 'root'"),
        ("root ::= b", "refers to rule 'b', which it does not define"),
        ("root = [a]", "in line 1: expected '::=' after rule name 'root'"),
        ('root ::= "a"\n\n| "b"', "in line 3: expected the name of a rule"),
        ('root ::= "a', "it ends inside a literal"),
        ("root ::= [a", "it ends inside a literal or a character class"),
        ("root ::= []", "an empty character class"),
        ("root ::= [z-a]", "a range that ends before it begins"),
        (r'root ::= "\q"', r"unknown escape '\\q'"),
        (r'root ::= "\x4"', "needs 2 hexadecimal digits"),
        (r'root ::= "\U00110000"', "is no character"),
        (r'root ::= "\x00"', "is no character"),
        ('root ::= "a\0"', "holds a NUL at position 11"),
        ('root ::= ("a"', r"expected '\)'"),
        ('root ::= "a")', r"unexpected '\)' in rule 'root'"),
        ("root ::= *", "nothing to repeat in front of it"),
        ('root ::= ""{3}', "nothing to repeat"),
        ('root ::= "a"{5,2}', "repetition .5,2. is not in 0 ≤ m ≤ n ≤ 2000"),
        ('root ::= "a"{0,3000}', "is not in 0 ≤ m ≤ n ≤ 2000"),
        ('root ::= "a"{x}', "expected {m}, {m,} or {m,n}"),
        ('root ::= "a"{99999999999999999999}', "expected {m}"),
        ('root ::= ("a"{0,100}){100}', "more than 2000 repetitions, counting those inside"),
        (f'root ::= "{"a" * 3000}"{{2000}}', "more than 200000 symbols when repetitions are written out"),
        ("root ::= " + "(" * 200 + '"a"' + ")" * 200, "more than 100 nested groups"),
        ('root ::= "a"\nroot ::= "b"', "rule 'root' is defined twice"),
        ('root ::= <|im_end|> "a"', "tokens in a grammar are not supported"),
        ('root ::= root "a" | "b"', "rule 'root' begins with itself"),
        ('root ::= a\na ::= root | "x"', "begins with itself"),
        ('root ::= c root "x" | "y"\nc ::= b\nb ::= "" | "z"', "rule 'root' begins with itself"),
        ('root ::= "a"**', "begins with itself"),
        ('root ::= "a" root', "its rule 'root' always leads to itself"),
        ("root ::= root", "always leads to itself"),
        ('root ::= z{2000}\nz ::= y{2000}\ny ::= x{2000}\nx ::= "a"?', "can begin in .* ways; at most 4000"),
        ("root ::= " + " | ".join(['"a"'] * 5000), "rule 'root' can begin in 5000 ways"),
        ('root ::= "' + "a" * 300_000 + '"', "has 300011 bytes; at most 262144"),
        ('root ::= "\ud800"', "not valid Unicode at position 10"),
    ],
)
def test_a_bad_grammar_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_grammar(text)


def test_rules_that_double_at_every_step_are_refused_at_once() -> None:
    # llama.cpp's search for left recursion takes 2^60 steps here.
    steps = "\n".join(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(60))
    with pytest.raises(ConfigError, match=r"can begin in \d+ ways"):
        check_grammar(f'root ::= r0\n{steps}\nr60 ::= "a"')


FUZZ = """
import random, sys
from pathlib import Path
from cascade.formats.gbnf import check_grammar
from cascade.engine.grammar import Grammar
from cascade.engine.weights import Weights
from cascade.errors import ConfigError, ModelError

weights = Weights(Path(sys.argv[1]))
parts = ["root", "a", "b", " ::= ", "\\n", '"x"', '"y\\\\n"', "[a-z]", "[^0]", ".", "(", ")", "|", "*", "+",
         "?", "{2}", "{1,3}", "{0,}", "{3,1}", " ", "#", '""', "<", "\\\\", '"', "[", "]"]
taken = 0
for seed in range(6000):
    draw = random.Random(seed)
    body = lambda: "".join(draw.choice(parts) + " " for _ in range(draw.randint(1, 7)))
    text = f"root ::= {body()}\\na ::= {body()}\\nb ::= {body()}"
    try:
        check_grammar(text)
    except ConfigError:
        continue
    taken += 1
    grammar = Grammar(weights, text)  # ModelError here: llama.cpp disagrees
    for token in range(0, 256, 5):
        if grammar.allows(token):
            grammar.accept(token)
    grammar.close()
print(taken)
"""


def test_what_is_taken_here_is_taken_by_llama_cpp_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = make_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf")
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""  # llama.cpp's parser complains there
    assert int(done.stdout) > 50
