"""Framings of `tcp_lines`: what a line is, over real sockets."""

import asyncio
import struct

import pytest
from support import balanced, within

import anabranch as ab


async def sent(*pieces, **options):
    """What a pipeline makes of these bytes from one client, sent piece by piece."""
    lines = ab.tcp_lines("127.0.0.1", 0, until="disconnected", **options)
    async with ab.Pipeline("p").source(lines).collect().start() as running:
        _, client = await asyncio.open_connection(*running.address)
        for piece in pieces:
            client.write(piece)
            await client.drain()
        client.close()
        await client.wait_closed()
        return balanced(await running.wait())


@within
async def test_e9_a_delimiter_ends_a_line_and_crlf_is_part_of_it():
    report = await sent(b"one\r\n\0tw", b"o\0\0last", framing=ab.Delimiter(b"\0"))
    assert report.items == ["one\r\n", "two", "", "last"]
    report = await sent(b"a<e", b"nd", b">b<en>c", framing=ab.Delimiter(b"<end>"))
    assert report.items == ["a", "b<en>c"]


@pytest.mark.parametrize("byteorder", ["big", "little"])
@pytest.mark.parametrize(("size", "code"), [(1, "B"), (2, "H"), (4, "I"), (8, "Q")])
@within
async def test_e9_a_length_comes_before_its_line(size, code, byteorder):
    of = struct.Struct((">" if byteorder == "big" else "<") + code)
    messages = [b"one\n", b"", b"\0\xff" * 100]
    data = b"".join(of.pack(len(message)) + message for message in messages)
    framing = ab.LengthPrefix(size, byteorder=byteorder)
    report = await sent(data[:3], data[3:], framing=framing, encoding=None)
    assert report.items == messages


@within
async def test_e9_lines_that_cannot_be_taken_are_failures_whatever_the_framing():
    data = b"\x03bad" + b"\x04good" + b"\x02\xff\xfe" + b"\x05tru"
    report = await sent(data, framing=ab.LengthPrefix(1), max_line=4)
    assert report.items == ["bad", "good"]
    assert report.codes == {"source.invalid_utf8": 1, "source.line_too_long": 1}
    report = await sent(b"\x04tru", framing=ab.LengthPrefix(1))
    assert report.codes == {"source.truncated": 1}
    (failure,) = report.failures
    assert "end of the stream in the middle of a line (3 bytes of it came)" in str(failure.error)
    report = await sent(b"12345;1234;", framing=ab.Delimiter(b";"), max_line=4)
    assert (report.items, report.codes) == (["1234"], {"source.line_too_long": 1})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ab.Delimiter(b""), "Delimiter: end must be non-empty bytes, got b''"),
        (lambda: ab.Delimiter("\n"), "Delimiter: end must be non-empty bytes, got '\\n'"),
        (lambda: ab.LengthPrefix(3), "LengthPrefix: size must be 1, 2, 4 or 8, got 3"),
        (lambda: ab.LengthPrefix(size=True), "LengthPrefix: size must be 1, 2, 4 or 8, got True"),
        (
            lambda: ab.LengthPrefix(byteorder="network"),
            "LengthPrefix: byteorder must be 'big' or 'little', got 'network'",
        ),
        (
            lambda: ab.tcp_lines("::1", 0, framing=b"\0"),
            "tcp_lines: framing must be 'lines', a Delimiter or a LengthPrefix, got b'\\x00'",
        ),
    ],
)
def test_e9_a_framing_that_is_none_is_refused_at_once(make, said):
    with pytest.raises(ab.ConfigError) as refused:
        make()
    assert str(refused.value) == said
