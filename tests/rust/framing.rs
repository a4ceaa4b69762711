//! Bytes into lines: terminators, limits, encodings, ends; and no matter how they are chunked.

use anabranch::source::framing::{Decode, End, Event, Failure, LineSplitter, Lines, TRUNCATED};
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
    let mut splitter = LineSplitter::new(8, decode);
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
    let mut splitter = LineSplitter::new(8, STRICT);
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

proptest! {
    /// Any chunking of the same bytes gives the same events: those of the plain way.
    #[test]
    fn the_chunks_do_not_matter(
        stream in streams(),
        cuts in prop::collection::vec(0usize..120, 0..40),
        decode in prop::sample::select(&[Decode::Bytes, STRICT, Decode::Utf8 { lossy: true }][..]),
        clean in any::<bool>(),
    ) {
        let end = if clean { End::Clean } else { End::Cut("cut") };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        prop_assert_eq!(split(&chunks, decode, end), reference(&stream, decode, end));
    }
}
