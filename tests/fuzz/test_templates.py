"""Hostile chat templates end within bounded memory and steps, whatever they repeat, nest, fill or double."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from fuzzing import fuzz

# Memory beyond this kills the process, and so does an hour-long loop: neither may happen.
SERVER = """
import json, resource, signal, sys
from cascade.engine.template import ChatTemplate
from cascade.errors import ModelError

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
messages = [{"role": "user", "content": "hello <|im_end|> " * 20}, {"role": "assistant", "content": "ok"}]
for line in sys.stdin:
    signal.alarm(120)
    try:
        template = ChatTemplate(json.loads(line), "<s>", "</s>")
        said = f"rendered {len(template.render(messages, None, 2_000))}"
    except ModelError as error:
        said = f"refused: {error}"
    signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([said, peak]), flush=True)
"""
PEAK_MIB = 1200
NUMBERS = (0, 1, 2, 7, 10**3, 10**5, 10**6, 10**9, 10**12)
FILTERS = (
    "upper", "lower", "trim", "length", "list", "join", "join(v)", "string", "tojson",
    "tojson(indent=N)", "sort", "indent(N)", "indent(v)", "center(N)", "replace('', v)",
    "replace('a', v)", "replace('l', 'll')", "batch(N, v)", "slice(N, v)", "wordwrap(1, wrapstring=v)",
    "wordwrap(N)", "round(N)", "escape", "urlencode", "pprint", "unique", "title", "reverse", "first",
    "last", "map('upper')", "map('replace', 'l', v)", "select", "sum(start=[])", "format(v, v)",
    "truncate(N)", "default(v)", "int", "float", "groupby('role')", "dictsort", "items",
    "selectattr('role')", "map(attribute='content')", "filesizeformat", "abs", "capitalize",
    "wordcount", "min", "max",
)  # fmt: skip
METHODS = (
    "ljust(N)", "rjust(N)", "center(N)", "zfill(N)", "expandtabs(N)", "replace('', v)",
    "replace('l', v)", "join(messages)", "join([v, v, v])", "format(v, v)", "format(*[v, v])",
    "split()", "split('l')", "upper()", "strip()", "encode()", "translate({108: v})", "splitlines()",
    "title()", "count('l')", "startswith('l')", "partition('l')",
)  # fmt: skip


ATOMS = (
    "v", "w.x", "w.x", "messages", "messages[0].content", "'lol{}%s'", "'%Ns'", "'{:>N}'", "N", "[v]",
    "[w.x, w.x]", "{'a': v}", "range(N)", "[1]", "'x'", "strftime_now('%NY')",
)  # fmt: skip
DOUBLED = ("w.x ~ w.x", "w.x + w.x", "[w.x, w.x]", "w.x | string * 9")


class Program:
    """Draws a template: a few statements about the variables `v` and `w` and the messages."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def expression(self, depth: int = 2) -> str:
        atom = self.draw.choice(ATOMS)
        if depth == 0 or self.draw.random() < 0.3:
            return self.numbered(atom)
        one, other = self.expression(depth - 1), self.expression(depth - 1)
        return self.draw.choice([
            f"({one}) | {self.numbered(self.draw.choice(FILTERS))}",
            f"({one}).{self.numbered(self.draw.choice(METHODS))}",
            f"({one} {self.draw.choice(['+', '*', '~', '%', '~', '**', '-', '//'])} {other})",
            f"({one})[{self.draw.choice(['1:', ':-1', '::-1', '0'])}]",
            f"(({one}) {self.draw.choice(['==', 'in', '<', 'not in'])} ({other}))",
            f"dict(a={one}, b={other})", f"({one} if {other} else {one})",
        ])  # fmt: skip

    def numbered(self, text: str) -> str:
        return text.replace("N", str(self.draw.choice(NUMBERS)))

    def statement(self, depth: int = 3) -> str:
        made = self.expression()
        kind = self.draw.randrange(9)
        if depth == 0 or kind < 2:
            return f"{{{{ {made} }}}}"
        inner = "".join(self.statement(depth - 1) for _ in range(self.draw.randint(1, 3)))
        if kind == 2:
            return f"{{% set w.x = {made} %}}"
        if kind == 3:
            return f"{{% set v %}}{{{{ v }}}}{{{{ v }}}}{inner}{{% endset %}}"
        if kind == 4:
            return f"{{% set w.x = {self.draw.choice(DOUBLED)} %}}"
        if kind == 5:
            again = "{% if v %}{{ m(v) }}{% endif %}"
            return f"{{% macro m(v) %}}{inner}{again}{{% endmacro %}}{{{{ m({made}) }}}}"
        if kind == 6:
            return f"{{% if {made} %}}{inner}{{% endif %}}"
        many = self.draw.choice(
            [f"range({self.draw.choice(NUMBERS)})", f"range({self.draw.choice(NUMBERS)})", made, "messages"]
        )
        return f"{{% for i in {many} %}}{inner}{{% endfor %}}"

    def template(self) -> str:
        body = "".join(self.statement() for _ in range(self.draw.randint(1, 4)))
        again = self.draw.choice(["", "", "{% for i in range(60) %}{% set w.x = w.x ~ w.x %}{% endfor %}"])
        return f"{{% set w = namespace(x='ab') %}}{{% set v = 'l' * 1000 %}}{again}{body}"


def fuzz_templates(examples: int) -> dict[str, int]:
    seen: dict[str, int] = {}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def check(source: str) -> None:
            print(json.dumps(source), file=server.stdin, flush=True)
            answer = server.stdout.readline()
            assert answer, "the process died"
            said, peak = json.loads(answer)
            kind = "rendered" if said.startswith("rendered") else said.split(":")[0]
            seen[kind] = seen.get(kind, 0) + 1
            assert peak < PEAK_MIB, f"{peak} MiB: {said:.300}"

        fuzz("chat-templates", lambda draw: Program(draw).template(), check, examples=examples)
        server.stdin.close()
    return seen


def test_hostile_templates_end_within_bounds() -> None:
    seen = fuzz_templates(90)
    assert seen["rendered"] > 2
    assert sum(seen.values()) - seen["rendered"] > 20


@pytest.mark.slow
def test_thousands_of_hostile_templates_end_within_bounds() -> None:
    fuzz_templates(5000)
