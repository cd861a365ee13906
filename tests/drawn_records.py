"""Any record at all, drawn by hypothesis from the annotations of its fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from cascade.records import Record

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(0, 2**31 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    type(None): st.none(),
    Any: JSON,
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation of a record, every field drawn: a field without a column is found."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Record):
        return st.builds(kind, **{name: values(f.annotation) for name, f in kind.model_fields.items()})
    if get_origin(kind) is Annotated:  # a union with a discriminator
        return values(get_args(kind)[0])
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return st.sampled_from(inner)
    if get_origin(kind) is dict:
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    if get_origin(kind) is tuple:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    return st.one_of([values(one) for one in inner])
