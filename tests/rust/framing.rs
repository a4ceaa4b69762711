//! Bytes into lines: ends, lengths, limits, encodings; and no matter how they are chunked.

use anabranch_core::framing::{
    Decode, End, Event, Failure, Framing, LineSplitter, Lines, TRUNCATED,
};
use proptest::prelude::*;

const STRICT: Decode = Decode::Utf8 { lossy: false };

/// What came of a stream, written down: lines as text, failures as code and bytes.
fn written(batches: &[Lines]) -> Vec<String> {
    let events = batches.iter().flat_map(Lines::iter);
    let write = |event: Event<'_>| match event {
        Event::Line(line) => format!("={}", line.escape_ascii()),
        Event::Failed(failure) => format!("!{} {}", failure.code, failure.bytes),
    };
    events.map(write).collect()
}

/// Everything that comes of `chunks`, with `max_line` 8.
fn split(chunks: &[&[u8]], decode: Decode, end: End) -> Vec<String> {
    split_by(&Framing::Lf, chunks, decode, end)
}

fn split_by(framing: &Framing, chunks: &[&[u8]], decode: Decode, end: End) -> Vec<String> {
    let mut splitter = LineSplitter::new(framing, 8, decode);
    let mut batches: Vec<_> = chunks.iter().map(|chunk| splitter.feed(chunk)).collect();
    batches.push(splitter.finish(end));
    for lines in &batches {
        assert_eq!(lines.iter().len(), lines.len());
    }
    written(&batches)
}

#[test]
fn e9_one_cr_before_lf_is_removed_and_no_other() {
    let stream: &[u8] = b"a\r\nb\r\r\n\rc\n\r\n\nd\r";
    let lines = ["=a", "=b\\r", "=\\rc", "=", "=", "=d\\r"];
    assert_eq!(split(&[stream], STRICT, End::Clean), lines);
    assert_eq!(split(&[b"a\r", b"\nb"], STRICT, End::Clean), ["=a", "=b"]);
}

#[test]
fn an_unterminated_tail_is_a_line_if_the_end_is_clean_and_truncated_if_it_is_not() {
    assert_eq!(
        split(&[b"a\nta", b"il"], STRICT, End::Clean),
        ["=a", "=tail"]
    );
    let cut = split(&[b"a\nta", b"il"], STRICT, End::Cut("connection reset"));
    assert_eq!(cut, ["=a", "!source.truncated 4"]);
    assert_eq!(
        split(&[b"a\n"], STRICT, End::Cut("connection reset")),
        ["=a"]
    );
    assert_eq!(split(&[], STRICT, End::Clean), Vec::<String>::new());
}

#[test]
fn a_failure_says_what_happened() {
    let mut splitter = LineSplitter::new(&Framing::Lf, 8, STRICT);
    splitter.feed(b"abc");
    let lines = splitter.finish(End::Cut("connection reset"));
    let said: Vec<_> = lines.iter().collect();
    let message = "connection reset in the middle of a line (3 bytes of it came)".to_owned();
    assert_eq!(
        said,
        [Event::Failed(&Failure {
            code: TRUNCATED,
            message,
            bytes: 3
        })]
    );
}

#[test]
fn a_batch_is_read_on_from_where_it_was_left() {
    let mut splitter = LineSplitter::new(&Framing::Lf, 3, STRICT);
    let lines = splitter.feed(b"one\ntoo long\ntwo\n");
    let mut events = lines.iter();
    for left in (0..3).rev() {
        let expected = lines.iter().nth(2 - left);
        assert_eq!(lines.iter_from(events.place()).next(), expected);
        assert_eq!(events.next(), expected);
        assert_eq!(lines.iter_from(events.place()).len(), left);
    }
}

#[test]
fn max_line_counts_the_contents_alone() {
    let stream: &[u8] = b"12345678\r\n123456789\r\n12345678\n123456789\nok\n";
    let whole = split(&[stream], STRICT, End::Clean);
    let too_long = "!source.line_too_long 9";
    assert_eq!(whole, ["=12345678", too_long, "=12345678", too_long, "=ok"]);
    // The CR is the ninth byte of a line of eight as long as its LF may still come.
    assert_eq!(
        split(&[b"12345678\r", b"\n"], STRICT, End::Clean),
        ["=12345678"]
    );
    assert_eq!(split(&[b"12345678\r"], STRICT, End::Clean), [too_long]);
    assert_eq!(
        split(&[b"12345678\r", b"x\n"], STRICT, End::Clean),
        ["!source.line_too_long 10"]
    );
}

#[test]
fn e9_invalid_utf8_fails_alone_or_is_replaced_or_stays() {
    // The halves of one character on two lines would be valid only together.
    let stream: &[u8] = b"good\nb\xffd\n\xc3\n\xa4\n\xc3\xa4\n";
    let invalid = |bytes: usize| format!("!source.invalid_utf8 {bytes}");
    let good = ["=good".to_owned(), "=\\xc3\\xa4".to_owned()];
    let strict = split(&[stream], STRICT, End::Clean);
    assert_eq!(
        strict,
        [&good[0], &invalid(3), &invalid(1), &invalid(1), &good[1]].map(String::clone)
    );
    let lossy = split(&[stream], Decode::Utf8 { lossy: true }, End::Clean);
    let mark = "\\xef\\xbf\\xbd";
    let replaced = [format!("=b{mark}d"), format!("={mark}"), format!("={mark}")];
    assert_eq!(lossy[1..4], replaced);
    let bytes = split(&[stream], Decode::Bytes, End::Clean);
    assert_eq!(bytes[1..4], ["=b\\xffd", "=\\xc3", "=\\xa4"]);
}

/// Lines the plain way: the whole stream at hand, nothing clever.
fn reference(stream: &[u8], decode: Decode, end: End) -> Vec<String> {
    let mut pieces: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    let tail = pieces.pop().unwrap_or_default();
    let mut events: Vec<_> = pieces
        .into_iter()
        .map(chomp)
        .map(|it| one(it, decode))
        .collect();
    match end {
        _ if tail.is_empty() => {}
        End::Clean => events.push(one(tail, decode)),
        // Too long is too long, however it ends; but its last CR may have been a terminator's.
        End::Cut(_) if chomp(tail).len() > 8 => events.push(one(tail, Decode::Bytes)),
        End::Cut(_) => events.push(format!("!source.truncated {}", tail.len())),
    }
    events
}

fn chomp(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn one(line: &[u8], decode: Decode) -> String {
    match (std::str::from_utf8(line), decode) {
        _ if line.len() > 8 => format!("!source.line_too_long {}", line.len()),
        (Err(_), Decode::Utf8 { lossy: false }) => {
            format!("!source.invalid_utf8 {}", line.len())
        }
        (Err(_), Decode::Utf8 { lossy: true }) => {
            format!(
                "={}",
                String::from_utf8_lossy(line).as_bytes().escape_ascii()
            )
        }
        _ => format!("={}", line.escape_ascii()),
    }
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        6 => Just(b'x'),
        2 => Just(b'\n'),
        2 => Just(b'\r'),
        1 => prop::sample::select(&[0xc3_u8, 0xa4, 0xff][..]),
    ];
    prop::collection::vec(byte, 0..120)
}

#[test]
fn e9_a_delimiter_ends_a_line_and_cr_and_lf_are_bytes_like_others() {
    let null = Framing::Delimiter(vec![0]);
    let stream: &[u8] = b"a\r\0b\nc\0\0d";
    let lines = ["=a\\r", "=b\\nc", "=", "=d"];
    assert_eq!(split_by(&null, &[stream], STRICT, End::Clean), lines);
    let end = Framing::Delimiter(b"<end>".to_vec());
    let chunks: [&[u8]; 4] = [
        b"a<e",
        b"nd",
        b"><en",
        b"dx<end>12345678<end>123456789<end>t",
    ];
    let lines = ["=a", "=<endx", "=12345678", "!source.line_too_long 9", "=t"];
    assert_eq!(split_by(&end, &chunks, STRICT, End::Clean), lines);
    // A delimiter that begins like itself is found the first time it comes.
    let twins = Framing::Delimiter(b"aa".to_vec());
    assert_eq!(
        split_by(&twins, &[b"xa", b"aa", b"a"], STRICT, End::Clean),
        ["=x", "="]
    );
}

#[test]
fn e9_a_length_comes_before_its_line_in_one_to_eight_bytes() {
    let by = |size, little_endian| Framing::LengthPrefix {
        size,
        little_endian,
    };
    let streams: [(Framing, &[u8]); 4] = [
        (by(1, false), b"\x02ab\0\x01c"),
        (by(2, false), b"\0\x02ab\0\0\0\x01c"),
        (by(4, true), b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"),
        (
            by(8, false),
            b"\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01c",
        ),
    ];
    for (framing, stream) in streams {
        assert_eq!(
            split_by(&framing, &[stream], STRICT, End::Clean),
            ["=ab", "=", "=c"]
        );
    }
}

#[test]
fn a_length_without_its_line_is_truncated_however_clean_the_end() {
    let framing = Framing::LengthPrefix {
        size: 2,
        little_endian: false,
    };
    let of = |stream: &[u8], end| split_by(&framing, &[stream], STRICT, end);
    assert_eq!(of(b"\0\x05abc", End::Clean), ["!source.truncated 3"]);
    assert_eq!(of(b"\0", End::Clean), ["!source.truncated 0"]);
    assert_eq!(of(b"\0\x01a", End::Cut("reset")), ["=a"]);
    let mut splitter = LineSplitter::new(&framing, 8, STRICT);
    splitter.feed(b"\0\x05abc");
    let lines = splitter.finish(End::Clean);
    let Some(Event::Failed(failure)) = lines.iter().next() else {
        panic!("{lines:?}")
    };
    let said = "end of the stream in the middle of a line (3 bytes of it came)";
    assert_eq!(failure.message, said);
}

#[test]
fn a_length_that_is_too_long_is_told_at_once_and_its_line_is_skipped() {
    let framing = Framing::LengthPrefix {
        size: 8,
        little_endian: true,
    };
    let mut splitter = LineSplitter::new(&framing, 8, STRICT);
    assert_eq!(
        written(&[splitter.feed(&9_u64.to_le_bytes())]),
        ["!source.line_too_long 9"]
    );
    assert!(splitter.feed(b"12345678").is_empty());
    let lines = splitter.feed(b"9\x02\0\0\0\0\0\0\0ok");
    assert_eq!(written(&[lines]), ["=ok"]);
    // Nonsense for a length: nothing comes of it any more, and nothing is kept of what comes.
    splitter.feed(&u64::MAX.to_le_bytes());
    assert!(splitter.feed(&[b'x'; 1000]).is_empty());
    assert!(
        splitter.finish(End::Cut("reset")).is_empty(),
        "it was told of"
    );
}

/// Lines by a delimiter the plain way.
fn reference_by(delimiter: &[u8], stream: &[u8], decode: Decode, end: End) -> Vec<String> {
    let (mut rest, mut events) = (stream, Vec::new());
    while let Some(at) = rest.windows(delimiter.len()).position(|it| it == delimiter) {
        events.push(one(&rest[..at], decode));
        rest = &rest[at + delimiter.len()..];
    }
    let begun = (1..delimiter.len())
        .rev()
        .find(|&n| rest.ends_with(&delimiter[..n]));
    match end {
        _ if rest.is_empty() => {}
        End::Clean => events.push(one(rest, decode)),
        End::Cut(_) if rest.len() - begun.unwrap_or(0) > 8 => {
            events.push(one(rest, Decode::Bytes));
        }
        End::Cut(_) => events.push(format!("!source.truncated {}", rest.len())),
    }
    events
}

/// Lines by their lengths the plain way.
fn reference_of_lengths(size: usize, little: bool, stream: &[u8], decode: Decode) -> Vec<String> {
    let (mut rest, mut events) = (stream, Vec::new());
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_at_checked(size) else {
            events.push("!source.truncated 0".to_owned());
            break;
        };
        let fold = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        let length = if little {
            length.iter().rev().fold(0, fold)
        } else {
            length.iter().fold(0, fold)
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > 8 {
            events.push(format!("!source.line_too_long {length}"));
        }
        let Some((line, after)) = after.split_at_checked(length) else {
            if length <= 8 {
                events.push(format!("!source.truncated {}", after.len()));
            }
            break;
        };
        if length <= 8 {
            events.push(one(line, decode));
        }
        rest = after;
    }
    events
}

/// `stream` in pieces.
fn cut(stream: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    for cut in &mut cuts {
        *cut = stream.len().min(*cut);
    }
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..120, 0..40)
}

fn decodes() -> impl Strategy<Value = Decode> {
    prop::sample::select(&[Decode::Bytes, STRICT, Decode::Utf8 { lossy: true }][..])
}

proptest! {
    /// Any chunking of the same bytes gives the same events: those of the plain way.
    #[test]
    fn the_chunks_do_not_matter(
        stream in streams(), cuts in cuts(), decode in decodes(), clean in any::<bool>(),
    ) {
        let end = if clean { End::Clean } else { End::Cut("cut") };
        let events = split(&cut(&stream, cuts), decode, end);
        prop_assert_eq!(events, reference(&stream, decode, end));
    }

    /// The same by a delimiter, of few different bytes, so that it often almost comes.
    #[test]
    fn the_chunks_do_not_matter_to_a_delimiter(
        delimiter in prop::collection::vec(prop::sample::select(&b"xy\n"[..]), 1..5),
        stream in prop::collection::vec(prop::sample::select(&b"xxyy\n\r\xff"[..]), 0..120),
        cuts in cuts(), decode in decodes(), clean in any::<bool>(),
    ) {
        let end = if clean { End::Clean } else { End::Cut("cut") };
        let framing = Framing::Delimiter(delimiter.clone());
        let events = split_by(&framing, &cut(&stream, cuts), decode, end);
        prop_assert_eq!(events, reference_by(&delimiter, &stream, decode, end));
    }

    /// The same by lengths: of short lines, of some that are too long, and nonsense at the end.
    #[test]
    fn the_chunks_do_not_matter_to_lengths(
        size in 1usize..=8, little in any::<bool>(),
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..12),
        cut_off in 0usize..20, cuts in cuts(), decode in decodes(), clean in any::<bool>(),
    ) {
        let mut stream = Vec::new();
        for line in &lines {
            let length = (line.len() as u64).to_be_bytes();
            let mut length = length[8 - size..].to_vec();
            if little {
                length.reverse();
            }
            stream.extend(length);
            stream.extend(line);
        }
        stream.truncate(stream.len().saturating_sub(cut_off));
        let end = if clean { End::Clean } else { End::Cut("cut") };
        let framing = Framing::LengthPrefix { size, little_endian: little };
        let events = split_by(&framing, &cut(&stream, cuts), decode, end);
        prop_assert_eq!(events, reference_of_lengths(size, little, &stream, decode));
    }
}
