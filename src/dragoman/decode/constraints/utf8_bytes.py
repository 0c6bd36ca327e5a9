"""UTF-8 byte by byte, after RFC 3629: which byte may follow, and how many a character has."""

SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
"""First and last second byte after those lead bytes that allow fewer than others (section 4)."""


def may_follow(prefix: bytes, byte: int) -> bool:
    """Return whether ``byte`` may follow ``prefix``, the beginning of an unfinished character or nothing."""
    if not prefix:
        return byte < 0x80 or 0xC2 <= byte <= 0xF4
    low, high = SECOND.get(prefix[0], (0x80, 0xBF)) if len(prefix) == 1 else (0x80, 0xBF)
    return low <= byte <= high


def bytes_missing(prefix: bytes) -> int:
    """Return the number of bytes that complete the character that ``prefix`` begins; 0 where it is complete."""
    lead = prefix[0]
    return (1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4) - len(prefix)
