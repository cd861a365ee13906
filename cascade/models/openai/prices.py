"""Prices by model name from genai-prices: a table that comes with the package, no network."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from cascade.spec.parts import Price

_PER_MILLION = {"input_mtok", "output_mtok"}
# Fees by the request or message cannot be expressed per token; such a price has to be in the graph file.
_PER_REQUEST = {"requests_kcount", "input_text_messages_kcount", "input_mchars"}


@cache
def lookup(model: str) -> Price | None:
    """Return the highest price that `model` can have today, in USD per million tokens; None if unknown.

    Some prices rise with the length of the prompt or change with the time of day. Limits must hold in
    the worst case, so the dearest tier and the dearest hour (UTC) count. The name decides the provider
    (`gpt-…` is OpenAI's price, whoever resells it); `PROVIDER/MODEL` names it.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    prices = [_price_at(model, midnight.replace(hour=hour)) for hour in range(24)]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    highest, cached = max(price.input for price in known), [price.cached for price in known]
    return Price(
        input=highest,
        output=max(price.output for price in known),
        # A price for cached prompts at some hours only would be a discount that nobody promised.
        cached=None if None in cached else min(highest, max(value or 0.0 for value in cached)),
    )


def _price_at(model: str, moment: datetime) -> Price | None:
    from genai_prices import Usage, calc_price

    provider, slash, name = model.partition("/")
    try:
        price = calc_price(
            Usage(input_tokens=1, output_tokens=1),
            name if slash else model,
            provider_id=provider if slash else None,
            genai_request_timestamp=moment,
        ).model_price
    except LookupError:
        return None
    prices = {key: _highest(value) for key, value in vars(price).items() if value is not None}
    if not prices.keys() >= _PER_MILLION or any(prices.get(key) for key in _PER_REQUEST):
        return None
    cached = prices.get("cache_read_mtok")
    return Price(input=prices["input_mtok"], output=prices["output_mtok"], cached=cached)


def _highest(price: Any) -> float:
    """Return a plain price, or the highest tier of one that depends on the prompt's length."""
    tiers = [] if isinstance(price, Decimal) else [price.base, *(tier.price for tier in price.tiers)]
    return float(max(tiers, default=price))
