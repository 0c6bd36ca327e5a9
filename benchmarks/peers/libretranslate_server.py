"""LibreTranslate's own server with a run as one of its packages: a peer of ``../serve.py``.

    PYTHON benchmarks/peers/libretranslate_server.py RUN EXPORTED --port 8002 --precision int8 --beam 5

PYTHON is of an environment with ``pip install libretranslate`` that also finds this package. A package of Argos
Translate is a folder with a CTranslate2 model, a SentencePiece model and its description. The run's tokenizer spells in
bytes, which SentencePiece does not, so that ours stands in its place; and since MiniSBD, which splits sentences, loads
its models from the network, every text is one sentence, as those of the test set are. All else is LibreTranslate's.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from dragoman.checkpoint import RunDirectory


class RunTokenizer:
    """The run's tokenizers as Argos Translate calls one."""

    def __init__(self, run: Path, exported: Path):
        self.source, self.target = RunDirectory.open(run).tokenizers()
        self.tokens = json.loads(next(exported.glob("*vocabulary.json")).read_text())
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def encode(self, sentence: str) -> list[str]:
        return [self.tokens[i] for i in self.source.encode_batch([sentence])[0]]

    def decode(self, tokens: list[str]) -> str:
        return self.target.decode_batch([[self.ids[token] for token in tokens if token in self.ids]])[0]


class WholeText:
    """Splits nothing."""

    def __init__(self, package: object):
        self.package = package

    def split_sentences(self, text: str) -> list[str]:
        return [text]


def write_package(folder: Path, exported: Path, source: str, target: str) -> None:
    """Write a package of Argos Translate."""
    folder.mkdir(parents=True)
    described = {
        "package_version": "1.0",
        "argos_version": "1.9",
        "from_code": source,
        "from_name": source,
        "to_code": target,
        "to_name": target,
    }
    (folder / "metadata.json").write_text(json.dumps(described))
    (folder / "sentencepiece.model").write_bytes(b"")
    (folder / "model").symlink_to(exported.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--port", required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--beam", default="5")
    given = parser.parse_args()
    given.run, given.exported = given.run.resolve(), given.exported.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for source, target in (("en", "es"), ("es", "en")):  # with a single one it would look for more in the network
            write_package(Path(folder) / "packages" / f"{source}_{target}", given.exported, source, target)
        os.environ |= {
            "ARGOS_PACKAGES_DIR": str(Path(folder) / "packages"),
            "XDG_DATA_HOME": folder,
            "ARGOS_COMPUTE_TYPE": given.precision,
            "ARGOS_INTRA_THREADS": "1",
            "ARGOS_BEAM_SIZE": given.beam,
        }
        os.chdir(folder)  # where it keeps its sessions
        serve(given.run, given.exported, given.port)


def serve(run: Path, exported: Path, port: str) -> None:
    from argostranslate import package, translate  # pyright: ignore[reportMissingImports]
    from libretranslate import main as libretranslate_main  # pyright: ignore[reportMissingImports]

    tokenizer = RunTokenizer(run, exported)
    package.SentencePieceTokenizer = lambda path: tokenizer
    translate.MiniSBDSentencizer = WholeText
    options = ["--host", "127.0.0.1", "--port", port, "--load-only", "en,es", "--disable-files-translation"]
    sys.argv = ["libretranslate", *options, "--disable-web-ui"]
    libretranslate_main()


if __name__ == "__main__":
    main()
