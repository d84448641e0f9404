//! Hostile and ordinary archives against a real directory. Those with owners need root.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use tar::{Builder, Header};

use super::*;

#[path = "extract_tests/hostile.rs"]
mod hostile;

/// An archive made header by header, since the usual builder refuses what is tried here.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, path: &str, kind: EntryType, link: &str, content: &[u8], pax: &[(&str, &[u8])]) -> Self {
        let mut builder = Builder::new(&mut self.0);
        builder.append_pax_extensions(pax.iter().copied()).unwrap();
        let mut header = Header::new_ustar();
        let fields = header.as_old_mut();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
        header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap();
        // The builder ends its archive with two empty blocks; more is to come.
        self.0.truncate(self.0.len() - 1_024);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(path, EntryType::Regular, "", content.as_bytes(), &[])
    }

    fn dir(self, path: &str) -> Self {
        self.raw(path, EntryType::Directory, "", b"", &[])
    }

    fn link(self, kind: EntryType, path: &str, to: &str) -> Self {
        self.raw(path, kind, to, b"", &[])
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend([0; 1_024]);
        self.0
    }
}

/// A directory with a canary beside it.
struct Place {
    outer: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("canary"), "alive").unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        Self { outer }
    }

    fn root(&self) -> std::path::PathBuf {
        self.outer.path().join("root")
    }

    fn extract_within(&self, bytes: &[u8], limits: &Limits) -> Result<Unpacked, Refusal> {
        let root = File::open(self.root()).unwrap();
        let outcome = extract(bytes, root.as_fd(), limits);
        let names: Vec<_> =
            fs::read_dir(self.outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "something was made outside: {names:?}");
        let canary = self.outer.path().join("canary");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
        assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1, "something was linked from outside");
        outcome
    }

    fn extract(&self, tar: Tar) -> Result<Unpacked, Refusal> {
        self.extract_within(&tar.bytes(), &Limits::default())
    }
}

/// That it is refused, with a sentence that says so, and nothing happened outside.
fn refused(tar: Tar, saying: &str) {
    let error = Place::new().extract(tar).unwrap_err().to_string();
    assert!(error.contains(saying), "{error}");
}

#[test]
fn an_ordinary_layer_must_come_out_as_it_went_in() {
    let place = Place::new();
    let tar = Tar::default()
        .dir("./")
        .dir("usr/bin/")
        .file("usr/bin/tool", "content")
        .link(EntryType::Symlink, "bin", "/usr/bin")
        .link(EntryType::Link, "usr/bin/alias", "usr/bin/tool")
        .file("bin/through-a-link", "inside");
    let bytes = tar.bytes();
    let unpacked = place.extract_within(&bytes, &Limits::default()).unwrap();
    assert_eq!(unpacked.diff_id, berth_wire::digest::Digest::of(&bytes));
    let tool = fs::metadata(place.root().join("usr/bin/tool")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.mtime(), tool.nlink()), (0o4755, 1_000_000_000, 2));
    assert_eq!(fs::read_link(place.root().join("bin")).unwrap(), Path::new("/usr/bin"));
    assert_eq!(fs::read_to_string(place.root().join("usr/bin/through-a-link")).unwrap(), "inside");
}

#[test]
fn every_compression_must_be_read_and_give_the_same_diff_id() {
    let plain = Tar::default().file("a", "content").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &plain).unwrap();
    let zstd = zstd::stream::encode_all(plain.as_slice(), 1).unwrap();
    let wanted = berth_wire::digest::Digest::of(&plain);
    for bytes in [plain, gzip.finish().unwrap(), zstd] {
        assert_eq!(Place::new().extract_within(&bytes, &Limits::default()).unwrap().diff_id, wanted);
    }
}

#[test]
fn a_name_that_leads_out_must_be_refused() {
    refused(Tar::default().file("../canary", "dead"), "leads upwards");
    refused(Tar::default().file("a/../../canary", "dead"), "leads upwards");
    let pax: &[(&str, &[u8])] = &[("path", b"../canary")];
    refused(Tar::default().raw("innocent", EntryType::Regular, "", b"dead", pax), "leads upwards");
}

#[test]
fn a_symlink_must_not_lead_out() {
    let place = Place::new();
    let outside = place.outer.path().display().to_string();
    // Absolute and relative, to a directory and to a file: each is resolved with the layer as the root.
    for (name, target) in [("abs", outside.as_str()), ("rel", "..")] {
        let tar =
            Tar::default().link(EntryType::Symlink, name, target).file(&format!("{name}/canary"), "dead");
        // Whether it is refused or lands inside, `extract` checks the canary.
        let _ = place.extract(tar);
    }
    let tar = Tar::default().link(EntryType::Symlink, "f", "../canary").file("f", "replaced");
    place.extract(tar).unwrap();
    assert!(
        fs::symlink_metadata(place.root().join("f")).unwrap().is_file(),
        "the link itself must be replaced"
    );
}

#[test]
fn a_hard_link_must_not_lead_out() {
    refused(Tar::default().link(EntryType::Link, "l", "../canary"), "leads upwards");
    refused(Tar::default().link(EntryType::Link, "l", "/etc/passwd"), "not in the layer");
    let through = Tar::default().link(EntryType::Symlink, "up", "..").link(EntryType::Link, "l", "up/canary");
    refused(through, "not in the layer");
    // To a symlink: it links the symlink, and opening it later is the container's affair.
    let tar = Tar::default().link(EntryType::Symlink, "s", "../canary").link(EntryType::Link, "l", "s");
    Place::new().extract(tar).unwrap();
}

#[test]
fn a_device_node_must_be_left_out_and_other_kinds_refused() {
    let place = Place::new();
    let tar =
        Tar::default().raw("kmem", EntryType::Char, "", b"", &[]).raw("disk", EntryType::Block, "", b"", &[]);
    place.extract(tar.raw("pipe", EntryType::Fifo, "", b"", &[])).unwrap();
    assert!(!place.root().join("kmem").exists() && !place.root().join("disk").exists());
    assert!(fs::metadata(place.root().join("pipe")).unwrap().file_type().is_fifo());
    refused(Tar::default().raw("x", EntryType::new(b'S'), "", b"", &[]), "");
    refused(Tar::default().raw("x", EntryType::new(b'Z'), "", b"", &[]), "of a kind no layer has");
}

#[test]
fn attributes_of_overlayfs_must_be_refused_and_others_left_out() {
    for key in ["SCHILY.xattr.trusted.overlay.redirect", "SCHILY.xattr.user.overlay.opaque"] {
        refused(Tar::default().raw("x", EntryType::Regular, "", b"", &[(key, b"/etc")]), "overlayfs");
    }
    let sparse: &[(&str, &[u8])] = &[("GNU.sparse.major", b"1")];
    refused(Tar::default().raw("x", EntryType::Regular, "", b"", sparse), "of a kind no layer has");
    let harmless: &[(&str, &[u8])] = &[("SCHILY.xattr.user.note", b"x")];
    Place::new().extract(Tar::default().raw("x", EntryType::Regular, "", b"", harmless)).unwrap();
}

#[test]
fn an_owner_outside_the_range_must_be_refused() {
    refused(Tar::default().raw("x", EntryType::Regular, "", b"", &[("uid", b"65536")]), "owner above 65535");
    refused(
        Tar::default().raw("x", EntryType::Regular, "", b"", &[("gid", b"4294967295")]),
        "owner above 65535",
    );
}

#[test]
fn bombs_must_be_stopped() {
    let limits = Limits {
        bytes_max: 1 << 20,
        entries_max: 10,
        ratio_max: 10,
        ratio_free_bytes: 64 << 10,
        depth_max: 8,
        header_bytes_max: 4_096,
    };
    let stopped = |bytes: &[u8], saying: &str| {
        let error = Place::new().extract_within(bytes, &limits).unwrap_err().to_string();
        assert!(error.contains(saying), "{error}");
    };
    let zeros = Tar::default().raw("zeros", EntryType::Regular, "", &vec![0; 2 << 20], &[]).bytes();
    stopped(&zeros, "more than 1048576 bytes");
    stopped(&zstd::stream::encode_all(&zeros[..1 << 19], 1).unwrap(), "more than 10 times its size");
    let many = (0..11).fold(Tar::default(), |tar, n| tar.file(&n.to_string(), ""));
    stopped(&many.bytes(), "more than 10 entries");
    let implied = (0..4).fold(Tar::default(), |tar, n| tar.file(&format!("{n}/a/b/f"), ""));
    stopped(&implied.bytes(), "more than 10 entries");
    let long: &[(&str, &[u8])] = &[("SCHILY.xattr.user.note", &[b'x'; 8_192])];
    let long = Tar::default().raw("x", EntryType::Regular, "", b"", long);
    stopped(&long.bytes(), "take more than 4096 bytes");
    // Content counts as content, whatever kind of entry it comes with.
    let padded = Tar::default().raw("d", EntryType::Directory, "", &[0; 16_384], &[]).file("d/f", "");
    Place::new().extract_within(&padded.bytes(), &limits).unwrap();
    stopped(&Tar::default().file(&format!("{}f", "d/".repeat(9)), "").bytes(), "nested too deep");
    // Padding behind the archive's end counts, too.
    let mut padded = Tar::default().file("a", "").bytes();
    padded.extend(vec![0; 2 << 20]);
    stopped(&padded, "more than 1048576 bytes");
}

#[test]
fn whiteouts_must_become_those_of_overlayfs() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: whiteouts need root outside a user namespace on some kernels");
        return;
    }
    let place = Place::new();
    let tar = Tar::default()
        .file("etc/.wh.passwd", "")
        .dir("var/")
        .file("var/.wh..wh..opq", "")
        .file(".wh.again", "")
        .dir("again/")
        .file("kept", "")
        .file(".wh.kept", "");
    let unpacked = place.extract(tar).unwrap();
    let gone = fs::symlink_metadata(place.root().join("etc/passwd")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    // A directory in the place of a hidden one must not show what that had.
    assert_eq!(unpacked.opaque, ["var", "again"]);
    assert!(fs::symlink_metadata(place.root().join("kept")).unwrap().is_file());
    super::super::mark_opaque(&place.root(), &unpacked.opaque).unwrap();
    let mut value = [0; 1];
    rustix::fs::getxattr(place.root().join("var"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value, b"y");
    let elsewhere = ["../..".to_owned()];
    fs::write(place.outer.path().join("canary"), "alive").unwrap();
    let _ = super::super::mark_opaque(&place.root(), &elsewhere);
    assert!(rustix::fs::getxattr(place.outer.path(), "trusted.overlay.opaque", &mut value[..]).is_err());
}

#[test]
fn damage_must_be_an_error_and_no_panic() {
    let whole = Tar::default().dir("a/").file("a/b", "content").bytes();
    for cut in [1, 300, 513, 1_030] {
        let _ = Place::new().extract_within(&whole[..cut], &Limits::default());
    }
    assert!(Place::new().extract_within(b"\x1f\x8bnonsense", &Limits::default()).is_err());
    assert!(Place::new().extract_within(b"\x28\xb5\x2f\xfdnonsense", &Limits::default()).is_err());
    assert!(Place::new().extract_within(&[7; 2_048], &Limits::default()).is_err());
}
