"""Prices by name come from a table without a network, at the dearest tier and hour."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from cascade.models.openai.prices import lookup
from cascade.spec.parts import Price


def test_a_known_model_has_its_price_per_million_tokens() -> None:
    assert lookup("gpt-4o") == Price(input=2.5, output=10.0, cached=1.25)
    assert lookup("mistral-large-latest") == Price(input=2.0, output=6.0)  # none is known for cached prompts
    assert lookup("openai/gpt-4o") == lookup("gpt-4o")


@pytest.mark.parametrize(
    "name", ["", "/", "gpt-99", "llama3.2:3b", "my-own", "nobody/gpt-4o", "x" * 10_000, "ü\0"]
)
def test_an_unknown_model_has_no_price(name: str) -> None:
    assert lookup(name) is None


def test_a_price_in_tiers_counts_at_its_dearest() -> None:
    from genai_prices import Usage, calc_price

    price = lookup("gemini-2.5-pro")
    long = calc_price(Usage(input_tokens=1_000_000, output_tokens=1_000_000), "gemini-2.5-pro")
    short = calc_price(Usage(input_tokens=1000, output_tokens=1000), "gemini-2.5-pro")
    assert price is not None
    assert price.input + price.output == pytest.approx(float(long.total_price))
    assert price.input + price.output > 1000 * float(short.total_price)


def test_a_price_that_changes_with_the_hour_counts_at_its_dearest() -> None:
    from genai_prices import Usage, calc_price

    price = lookup("deepseek-chat")
    assert price is not None
    for hour in range(24):
        moment = datetime.now(UTC).replace(hour=hour, minute=0)
        paid = calc_price(
            Usage(input_tokens=1_000_000), "deepseek-chat", genai_request_timestamp=moment
        ).total_price
        assert price.input >= float(paid)


def test_a_fee_by_the_request_is_no_price_per_token() -> None:
    from genai_prices import Usage, calc_price

    fees = calc_price(Usage(input_tokens=1), "sonar-pro", provider_id="perplexity").model_price
    assert vars(fees)["requests_kcount"] > 0
    assert lookup("perplexity/sonar-pro") is None


def test_importing_the_module_does_not_load_the_table() -> None:
    code = "import sys, cascade.models.openai.prices; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
