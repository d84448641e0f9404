//! Layers: archives of any compression, unpacked for real beside a canary.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use berth_agent::image::{Limits, extract_here};
use berth_wire::digest::Digest;
use tar::{Builder, EntryType, Header};

use crate::{Target, target};

pub const TARGETS: &[Target] = &[Target { cost_us: 1_500, ..target("layer", layer, seeds) }];

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    entries_max: 200,
    ratio_max: 50,
    ratio_free_bytes: 64 << 10,
    depth_max: 16,
    header_bytes_max: 64 << 10,
};

fn layer(input: &[u8]) {
    // Damage would end at the checksum of a header: half of the inputs have theirs made right.
    let Some((first, rest)) = input.split_first() else { return };
    let bytes = if first % 2 == 0 { with_sums(rest) } else { rest.to_vec() };
    let outer = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    fs::write(outer.path().join("canary"), "alive").unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let dir = fs::File::open(&root).unwrap();
    let outcome = extract_here(bytes.as_slice(), dir.as_fd(), &LIMITS);
    let outside: Vec<_> =
        fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "outside there is {outside:?}");
    let canary = outer.path().join("canary");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    let about = fs::metadata(&canary).unwrap();
    assert_eq!((about.nlink(), about.mode() & 0o7000), (1, 0), "the canary was linked or changed");
    match outcome {
        Ok(unpacked) => {
            assert!(unpacked.bytes <= LIMITS.bytes_max);
            if !bytes.starts_with(&[0x1f, 0x8b]) && !bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                assert_eq!(unpacked.diff_id, Digest::of(&bytes));
            }
            let climbs = |path: &String| path.split('/').any(|part| part == "..") || path.starts_with('/');
            assert!(!unpacked.opaque.iter().any(climbs), "{:?}", unpacked.opaque);
        }
        Err(sentence) => {
            // It is shown to people: short, and nothing in it that a terminal would act on.
            assert!(!sentence.is_empty() && sentence.len() < 4_096, "{sentence}");
            assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
        }
    }
}

/// Every block that could be a header with the sum of its bytes (POSIX.1-2024, pax, ustar).
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let mut ordinary = Builder::new(Vec::new());
    entry(&mut ordinary, b"usr/bin/", EntryType::Directory, b"", b"");
    entry(&mut ordinary, b"usr/bin/tool", EntryType::Regular, b"", b"content");
    entry(&mut ordinary, b"bin", EntryType::Symlink, b"usr/bin", b"");
    entry(&mut ordinary, b"bin/other", EntryType::Link, b"usr/bin/tool", b"");
    entry(&mut ordinary, b"bin/through", EntryType::Regular, b"", b"x");
    let mut hostile = Builder::new(Vec::new());
    entry(&mut hostile, b"up", EntryType::Symlink, b"..", b"");
    entry(&mut hostile, b"up/canary", EntryType::Regular, b"", b"dead");
    entry(&mut hostile, b"link", EntryType::Link, b"up/canary", b"");
    entry(&mut hostile, b"dev", EntryType::Char, b"", b"");
    entry(&mut hostile, b"../canary", EntryType::Regular, b"", b"dead");
    let mut white = Builder::new(Vec::new());
    entry(&mut white, b"etc/.wh.passwd", EntryType::Regular, b"", b"");
    entry(&mut white, b"var/.wh..wh..opq", EntryType::Regular, b"", b"");
    entry(&mut white, b"var", EntryType::Symlink, b"etc", b"");
    let mut pax = Builder::new(Vec::new());
    let extensions: [(&str, &[u8]); 4] =
        [("path", b"a/b"), ("linkpath", b"a/c"), ("size", b"7"), ("SCHILY.xattr.user.note", b"x")];
    pax.append_pax_extensions(extensions).unwrap();
    entry(&mut pax, b"short", EntryType::Regular, b"", b"content");
    entry(&mut pax, b"././@LongLink", EntryType::GNULongName, b"", b"long/name/of/a/file");
    entry(&mut pax, b"short", EntryType::Regular, b"", b"content");
    [ordinary, hostile, white, pax].map(|tar| [vec![0], tar.into_inner().unwrap()].concat()).to_vec()
}

fn entry(tar: &mut Builder<Vec<u8>>, path: &[u8], kind: EntryType, link: &[u8], content: &[u8]) {
    let mut header = Header::new_gnu();
    let fields = header.as_old_mut();
    fields.name[..path.len()].copy_from_slice(path);
    fields.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}
