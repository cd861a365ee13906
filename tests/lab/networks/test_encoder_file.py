"""An encoder as PyTorch weights and back, with the vectors and the tokens that llama.cpp has for it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from bert_maker import small_bert  # noqa: E402

from cascade.errors import ConfigError  # noqa: E402
from cascade.lab.fitting.embed import embed_texts  # noqa: E402
from cascade.lab.networks import checkpoints  # noqa: E402
from cascade.lab.networks.encoder_file import read_encoder, write_encoder  # noqa: E402
from cascade.lab.networks.finetune import embed  # noqa: E402

LIMIT = 32


def test_an_encoder_survives_the_way_through_pytorch(tmp_path: Path) -> None:
    encoder = small_bert(["have", "lost", "the", "card", "help"], tmp_path)
    source = read_encoder(encoder)
    write_encoder(source, source.encoder, tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == encoder.read_bytes()
    texts = ["I have LOST the card!", "", "help " * 60]
    ours = embed(source.encoder, source.tokenize(texts, LIMIT))
    theirs = embed_texts(encoder, texts, LIMIT, lambda stage, share: None, 1)
    assert (ours * theirs).sum(1) == pytest.approx(1.0, abs=2e-3)


def test_what_is_no_encoder_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture is 'llama'; only 'bert' can be fine-tuned"):
        read_encoder(root / "cascade" / "experts" / "tiny.gguf")
    (tmp_path / "text.gguf").write_text("no")
    with pytest.raises(ConfigError, match="cannot be read as a GGUF file"):
        read_encoder(tmp_path / "text.gguf")
    with pytest.raises(ConfigError, match="cannot be read as a GGUF file"):
        read_encoder(tmp_path / "absent.gguf")


def test_a_checkpoint_that_cannot_be_written_or_read_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    checkpoints.save({"step": 3, "weights": torch.ones(2)}, path)
    found = checkpoints.load(path)
    assert found is not None
    assert (found["step"], found["weights"].tolist()) == (3, [1.0, 1.0])
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoints.load(path) is None
    (tmp_path / "file").write_text("")
    checkpoints.save({"step": 4}, tmp_path / "file" / "run.pt")
    assert checkpoints.load(tmp_path / "file" / "run.pt") is None
    assert checkpoints.load(None) is None
