//! Bytes that a container writes or a peer sends, cut anywhere: attach frames, the terminal filter, the launcher's drain of a log.

use std::fs;
use std::io::Write as _;

use berth_agent::logs::{line, name::LogName, router};
use berth_launcher::output::{Drain, LINE_BYTES_MAX, Scratch, Turn};
use berth_wire::attach::{AttachFailure, CONTENT_BYTES_MAX, Decoder, Frame, TerminalSize};
use berth_wire::code::Code;
use berth_wire::id::AppId;
use berth_wire::launch::OutputFile;
use berth_wire::report::Exit;
use berth_wire::terminal::{Colours, OutputLines, harmless};

use crate::{Target, target, texts};

pub const TARGETS: &[Target] = &[
    target("attach", attach, frames),
    target("terminal", terminal, outputs),
    Target { cost_us: 200, ..target("log-drain", log_drain, outputs) },
    target("log-line", log_line, log_lines),
];

/// The first byte says in which pieces the rest comes.
fn pieces(input: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    (1 + usize::from(*first), rest)
}

/// All frames, and whether the stream broke.
fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

fn attach(input: &[u8]) {
    let (size, stream) = pieces(input);
    let whole = decoded(std::iter::once(stream));
    assert_eq!(decoded(stream.chunks(size)), whole, "how it is cut must not matter");
    for frame in &whole.0 {
        let encoded = frame.encode();
        assert!(encoded.len() <= CONTENT_BYTES_MAX + 5, "{frame:?}");
        assert_eq!(decoded(std::iter::once(&*encoded)), (vec![frame.clone()], false));
    }
}

fn terminal(input: &[u8]) {
    let (size, stream) = pieces(input);
    let (mut whole, mut cut) = (OutputLines::default(), OutputLines::default());
    let mut lines = whole.feed(stream);
    lines.extend(whole.rest());
    let mut lines_cut: Vec<String> = stream.chunks(size).flat_map(|piece| cut.feed(piece)).collect();
    lines_cut.extend(cut.rest());
    // A line too long for the buffer is cut where pieces happen to end.
    if stream.split(|byte| *byte == b'\n').all(|line| line.len() < 8 << 10) {
        assert_eq!(lines, lines_cut, "how it is cut must not matter");
    }
    for line in lines {
        let dropped = harmless(&line, Colours::Drop);
        assert!(!dropped.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{dropped:?}");
        assert_eq!(harmless(&dropped, Colours::Drop), dropped);
        let kept = harmless(&line, Colours::Keep);
        assert_eq!(harmless(&kept, Colours::Drop).chars().filter(|c| *c == '\u{1b}').count(), 0);
        assert_eq!(
            harmless(&kept, Colours::Keep).trim_end_matches("\u{1b}[0m"),
            kept.trim_end_matches("\u{1b}[0m")
        );
        assert!(kept.len() <= line.len() * 8 + 8);
    }
}

fn log_drain(input: &[u8]) {
    let (size, stream) = pieces(input);
    let stream = &stream[..stream.len().min(32 << 10)];
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("log");
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC)
            .unwrap();
    let output = OutputFile {
        path: path.to_str().unwrap().to_owned(),
        bytes_max: 1 << 30,
        lines_per_second: 1_000_000,
    };
    let (mut drain, mut scratch, mut writer) =
        (Drain::new(read, &output, 0), Scratch::new().unwrap(), fs::File::from(write));
    // Each piece is a turn; a thousand turns are enough.
    for piece in stream.chunks(size.max(stream.len() / 1_000 + 1)) {
        writer.write_all(piece).unwrap();
        while drain.turn(&mut scratch, false).unwrap() == Turn::More {}
    }
    while drain.turn(&mut scratch, true).unwrap() == Turn::More {}
    let written = fs::read(&path).unwrap_or_default();
    let mut said = Vec::new();
    for entry in written.split_inclusive(|byte| *byte == b'\n') {
        let entry = entry.strip_suffix(b"\n").expect("every line has its end");
        let space = entry.iter().position(|byte| *byte == b' ').expect("every line has a stamp");
        assert!(entry[..space].iter().all(u8::is_ascii_digit));
        assert!(entry.len() - space - 1 <= LINE_BYTES_MAX);
        said.extend(&entry[space + 1..]);
        let _ = line::parse(entry);
    }
    assert_eq!(drain.discarded, 0);
    let wanted: usize = stream.iter().filter(|byte| !b"\r\n".contains(byte)).count();
    assert_eq!(
        said.iter().filter(|byte| !b"\r\n".contains(byte)).count(),
        wanted,
        "bytes were lost or made up"
    );
}

fn log_line(input: &[u8]) {
    for line in line::parse(input) {
        assert!(line.text.len() <= berth_wire::log::LogLine::TEXT_BYTES_MAX);
    }
    if let Some(line) = router::line_of(input, AppId(uuid::Uuid::nil())) {
        assert!(!line.text.contains('\n') && line.text.len() < 16 << 10, "{}", line.text);
    }
    let text = String::from_utf8_lossy(input);
    if let Some(name) = LogName::parse(&text) {
        assert_eq!(LogName::parse(&name.file_name()), Some(name.clone()));
        assert!(!name.file_name().contains('/'));
    }
}

fn frames() -> Vec<Vec<u8>> {
    let failure = AttachFailure { code: Code::R19, message: "x: not found".into(), status: Some(127) };
    let all = [
        Frame::Ping,
        Frame::Stdin(b"input\n".to_vec()),
        Frame::Stdout(b"output\n".to_vec()),
        Frame::Stderr(vec![]),
        Frame::StdinEnd,
        Frame::Credit(70_000),
        Frame::Resize(TerminalSize { rows: 24, columns: 300 }),
        Frame::Signal(15),
        Frame::Started,
        Frame::Exited(Exit::Code(3)),
        Frame::Failed(failure),
    ];
    let stream: Vec<u8> = all.iter().flat_map(Frame::encode).collect();
    let singles = all.iter().map(|frame| [vec![2], frame.encode()].concat());
    singles.chain([[vec![6], stream].concat()]).collect()
}

fn outputs() -> Vec<Vec<u8>> {
    let long = format!("\u{2}{}", "x".repeat(20_000));
    texts(&[
        "\u{3}plain\nlines\r\nand \u{1b}[1;31mcolour\u{1b}[0m\n",
        "\u{1}10%\r50%\r100%\nrest",
        "\u{7}\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}2J\u{1b}[\u{1b}[0mm\n",
        "\u{1}\u{1b}[38;2;1;2;3mx\u{1b}[38:5:1m",
        &long,
    ])
}

fn log_lines() -> Vec<Vec<u8>> {
    texts(&[
        "1732500000000000 text of a line",
        "99999999999999999999 x",
        "web.1.00000000-0000-0000-0000-000000000000.log",
        "web.1.00000000-0000-0000-0000-000000000000.log.1",
        r#"{"time": "2026-11-25T00:00:00Z", "method": "GET", "host": "shop.localhost", "path": "/a?b", "status": 200, "bytes": 10, "queue_ms": 0.1,
            "connect_ms": 1.0, "service_ms": 2.5, "client": "10.0.0.1", "request_id": "x", "app_id": "00000000-0000-0000-0000-000000000000",
            "process": "web.1", "code": "H12"}"#,
    ])
}
