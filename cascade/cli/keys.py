"""`cascade keys`: add, list and remove the API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="API keys of `cascade serve`.")
File = Annotated[Path, typer.Option("--file", help="Key file, as `cascade serve --keys` reads it.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The account's name, which traces and budgets show.")],
    file: File,
    graph: Annotated[
        list[str] | None, typer.Option(help="Graph it may ask; repeatable; default: all.")
    ] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Maximum requests per minute.")] = None,
    day_usd: Annotated[float | None, typer.Option(min=0, help="Maximum US dollars per UTC day.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May read and grade runs, and see metrics.")] = False,
) -> None:
    """Create a key and print it once. Only its hash is stored."""
    from cascade.serve.openai.keys import add_key

    allowed = None if graph is None else tuple(graph)
    _, secret = add_key(file, name=name, graphs=allowed, per_minute=per_minute, day_usd=day_usd, admin=admin)
    print(secret)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The account's name.")], file: File) -> None:
    """Remove a key. A running server refuses it from then on."""
    from cascade.serve.openai.keys import remove_key

    remove_key(file, name)


@app.command(name="list")
def list_(file: File) -> None:
    """List the keys, without their secrets."""
    from cascade.explain.formatting import printable
    from cascade.serve.openai.keys import read_keys

    for key in read_keys(file).keys:
        graphs = "all graphs" if key.graphs is None else ", ".join(key.graphs)
        rate = "" if key.per_minute is None else f", {key.per_minute} a minute"
        money = "" if key.day_usd is None else f", ${key.day_usd:g} a day"
        made = f"{key.name}: {graphs}{rate}{money}{', admin' if key.admin else ''}; made {key.created}"
        print(printable(made))
