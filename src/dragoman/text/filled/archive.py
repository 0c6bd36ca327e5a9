"""ZIP archives of a user, read within a limit: a small file may unpack to more than memory holds."""

import copy
import io
import shutil
import zipfile
from collections.abc import Mapping

from dragoman.errors import DataError

MOST = 1 << 30
"""Largest number of bytes that the members that are read may unpack to, all together."""


class ArchiveReader:
    """Members of an archive; each is read once, and only while all that were read stay within ``MOST`` bytes."""

    def __init__(self, archive: zipfile.ZipFile, name: str):
        """Read members of an archive that messages call ``name``."""
        self.archive, self.name = archive, name
        self.members = archive.namelist()
        self.contents: dict[str, bytes] = {}
        self.size = 0
        """Bytes of all contents."""

    def read(self, member: str) -> bytes:
        """Return the content of a member.

        Raises:
            DataError: the members that are read, with this one, unpack to too much; nothing of it is read then.
        """
        if member not in self.contents:
            self.size += self.archive.getinfo(member).file_size
            if self.size > MOST:
                raise DataError(f"{self.name}/{member}: the text of this archive unpacks to more than {MOST:,} bytes")
            self.contents[member] = self.archive.read(member)
        return self.contents[member]


def with_members(raw: bytes, changed: Mapping[str, bytes]) -> bytes:
    """Return an archive with some members replaced; all else about it stays."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(out, "w") as new:
        new.comment = archive.comment
        for info in archive.infolist():
            if info.filename in changed:
                new.writestr(info, changed[info.filename], compress_type=info.compress_type)
                continue
            with archive.open(info) as source, new.open(copy.copy(info), "w") as target:
                shutil.copyfileobj(source, target)  # a piece at a time: no limit holds for members that are copied
    return out.getvalue()
