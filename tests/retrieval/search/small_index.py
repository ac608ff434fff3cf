"""An index of thirty texts with whitening, and the small random model that made it."""

from pathlib import Path

from retrieval.search.store import BuildConfig, build
from retrieval.vectors.encoding import Encoding
from rope.encoder.roformer import RoFormerConfig
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from tests.rope.encoder.random_encoder import ROFORMER

TEXTS = [CHARACTERS[i : i + n] for i in range(10) for n in (3, 5, 7)]


def write_index(folder: Path, config: RoFormerConfig = ROFORMER) -> Path:
    """The folder of the index, in this folder."""
    write_model(folder / "m", config)
    (folder / "t.txt").write_text("\n".join(TEXTS) + "\n")
    encoding = Encoding(max_length=20, tokens=64)
    given = {"model": str(folder / "m"), "texts": str(folder / "t.txt"), "folder": str(folder / "index")}
    build(BuildConfig(**given, whiten=8, encoding=encoding))
    return folder / "index"
