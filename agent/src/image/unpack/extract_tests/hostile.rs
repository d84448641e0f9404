//! The tricks of hostile layers, one by one: each is refused or lands inside the tree, and [`Place`] sees that nothing happened
//! outside of it.

use super::*;

type Pax<'a> = &'a [(&'a str, &'a [u8])];

impl Tar {
    /// A GNU long name (`L`) or long link (`K`) for the entry that follows.
    fn gnu_long(mut self, kind: u8, text: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_entry_type(EntryType::new(kind));
        header.set_size(text.len() as u64 + 1);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(text);
        self.0.extend(vec![0; 512 - text.len() % 512]);
        self
    }

    /// Changes the last header that was written, whose content took no more than one block.
    fn with_header(mut self, content_blocks: usize, change: impl FnOnce(&mut Header)) -> Self {
        let at = self.0.len() - 512 * (content_blocks + 1);
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&self.0[at..at + 512]);
        change(&mut header);
        header.set_cksum();
        self.0[at..at + 512].copy_from_slice(header.as_bytes());
        self
    }
}

fn inside(place: &Place, path: &str) -> String {
    fs::read_to_string(place.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn an_absolute_name_must_land_inside() {
    let place = Place::new();
    let absolute = place.outer.path().join("canary").display().to_string();
    place.extract(Tar::default().file(&absolute, "dead")).unwrap();
    assert_eq!(inside(&place, absolute.trim_start_matches('/')), "dead");
}

#[test]
fn gnu_long_names_must_obey_the_rules_of_short_ones() {
    refused(Tar::default().gnu_long(b'L', b"a/../../canary").file("innocent", "dead"), "leads upwards");
    let long = [b"d/".repeat(3_000), b"f".to_vec()].concat();
    refused(Tar::default().gnu_long(b'L', &long).file("innocent", ""), "is too long");
    refused(Tar::default().gnu_long(b'L', b"a").gnu_long(b'L', b"b").file("c", ""), "two long name entries");
    refused(Tar::default().gnu_long(b'L', b"a"), "no future member");
    let link = Tar::default().gnu_long(b'K', b"../canary").link(EntryType::Link, "l", "innocent");
    refused(link.file("innocent", ""), "leads upwards");
    // It names the entry, not what is in the header.
    let place = Place::new();
    place.extract(Tar::default().gnu_long(b'L', b"inside/name").file("../canary", "content")).unwrap();
    assert_eq!(inside(&place, "inside/name"), "content");
}

#[test]
fn pax_overrides_must_obey_the_rules_of_headers() {
    let up: Pax<'_> = &[("linkpath", b"../canary")];
    refused(Tar::default().raw("l", EntryType::Link, "harmless", b"", up), "leads upwards");
    let passwd: Pax<'_> = &[("linkpath", b"/etc/passwd")];
    refused(Tar::default().raw("l", EntryType::Link, "harmless", b"", passwd), "not in the layer");
    let nul: Pax<'_> = &[("path", b"a\0b")];
    refused(Tar::default().raw("x", EntryType::Regular, "", b"", nul), "NUL");
    // Only followed inside a container.
    let place = Place::new();
    let link: Pax<'_> = &[("linkpath", b"/proc/self/root/../../canary")];
    place
        .extract(Tar::default().raw("s", EntryType::Symlink, "x", b"", link).file("s/canary", "dead"))
        .unwrap_err();
    assert!(fs::symlink_metadata(place.root().join("s")).unwrap().is_symlink());
}

#[test]
fn sizes_that_lie_must_smuggle_nothing_out() {
    // The header claims more than there is, and far more than the disk has.
    refused(Tar::default().file("x", "content").with_header(1, |header| header.set_size(1 << 40)), "");
    // In the form for numbers beyond 8 GiB, and beyond what can be counted.
    let huge = |header: &mut Header| header.as_old_mut().size = [0xff; 12];
    refused(Tar::default().file("x", "content").with_header(1, huge), "");
    // PAX says less or more than the header: what comes next is read as a header, or swallowed. Either way it obeys the rules.
    for size in ["0", "512", "1024", "99999999999999999999", "-1", ""] {
        let pax: Pax<'_> = &[("size", size.as_bytes())];
        let smuggled = Tar::default().file("../canary", "dead").bytes();
        let _ = Place::new().extract(Tar::default().raw("x", EntryType::Regular, "", &smuggled, pax));
    }
    let negative = |header: &mut Header| header.as_old_mut().mtime = [0xff; 12];
    let _ = Place::new().extract(Tar::default().file("x", "").with_header(0, negative));
}

#[test]
fn sparse_files_must_be_refused_in_every_form() {
    let old = |header: &mut Header| header.set_entry_type(EntryType::GNUSparse);
    refused(Tar::default().file("x", "content").with_header(1, old), "");
    for (major, minor) in [("0", "0"), ("0", "1"), ("1", "0")] {
        let pax: Pax<'_> = &[
            ("GNU.sparse.major", major.as_bytes()),
            ("GNU.sparse.minor", minor.as_bytes()),
            ("GNU.sparse.name", b"../canary"),
            ("GNU.sparse.realsize", b"1099511627776"),
        ];
        refused(Tar::default().raw("x", EntryType::Regular, "", b"0\n", pax), "of a kind no layer has");
    }
}

#[test]
fn a_name_that_was_something_else_must_not_be_written_through() {
    let place = Place::new();
    let outside = place.outer.path().display().to_string();
    // A directory that was used already becomes a link out of the tree: the descriptor that is kept of it must not matter.
    let tar = Tar::default().dir("d/").link(EntryType::Symlink, "d", &outside).file("d/canary", "dead");
    let _ = place.extract(tar);
    let tar = Tar::default()
        .link(EntryType::Symlink, "f", "../canary")
        .link(EntryType::Link, "g", "f")
        .file("g", "dead")
        .link(EntryType::Symlink, "h", "../canary")
        .raw("h", EntryType::Fifo, "", b"", &[])
        .link(EntryType::Symlink, "e", &outside)
        .dir("e/");
    Place::new().extract(tar).unwrap();
}

#[test]
fn a_hard_link_must_not_be_to_what_is_no_file() {
    refused(Tar::default().dir("d/").link(EntryType::Link, "l", "d"), "");
    refused(Tar::default().link(EntryType::Link, "l", "."), "hard link to the root");
    refused(Tar::default().link(EntryType::Link, "l", "l"), "not in the layer");
    // Device nodes are left out, so there is nothing to link.
    let device = Tar::default().raw("sda", EntryType::Block, "", b"", &[]);
    refused(device.link(EntryType::Link, "l", "sda"), "not in the layer");
    if nix::unistd::geteuid().is_root() {
        refused(Tar::default().file(".wh.gone", "").link(EntryType::Link, "l", "gone"), "not in the layer");
    }
}

#[test]
fn an_opaque_directory_must_be_where_it_says() {
    let through = Tar::default().link(EntryType::Symlink, "up", "..").file("up/.wh..wh..opq", "");
    refused(through, "symbolic link");
    let place = Place::new();
    let replaced =
        Tar::default().file("d/.wh..wh..opq", "").link(EntryType::Symlink, "d", "..").file("kept", "");
    let unpacked = place.extract(replaced).unwrap();
    super::super::super::mark_opaque(&place.root(), &unpacked.opaque).unwrap();
    assert_eq!(inside(&place, "kept"), "");
}

#[test]
fn names_that_are_none_must_be_refused() {
    refused(Tar::default().file("./", "dead"), "would replace the root");
    refused(Tar::default().link(EntryType::Symlink, ".", ".."), "would replace the root");
    refused(Tar::default().link(EntryType::Symlink, "s", ""), "");
    refused(Tar::default().file(".wh...", ""), "hides no name");
    let place = Place::new();
    place.extract(Tar::default().dir("d/").file("d/f", "").file("d", "dead")).unwrap_err();
    assert!(place.root().join("d").is_dir(), "what is in a directory must not go with one entry");
}

#[test]
fn a_refusal_must_not_reach_for_the_terminal() {
    // Found by fuzzing: what cannot be read as a number was quoted as it is.
    let escape = |header: &mut Header| header.as_old_mut().size = *b"\x1b]0;owned\x07\n ";
    let error = Place::new().extract(Tar::default().file("x", "").with_header(0, escape)).unwrap_err();
    let sentence = error.sentence();
    assert!(!sentence.chars().any(char::is_control) && sentence.contains("owned"), "{sentence:?}");
}

#[test]
fn a_header_whose_sum_is_wrong_must_be_refused() {
    let mut bytes = Tar::default().file("x", "content").bytes();
    bytes[0] ^= 1;
    assert!(Place::new().extract_within(&bytes, &Limits::default()).is_err());
}
