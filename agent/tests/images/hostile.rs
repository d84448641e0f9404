//! Hostile layers and the real, confined unpacker: each is refused with a sentence, and leaves nothing. The rules themselves are tried
//! one by one beside them, in `image/unpack`.

use std::fs;

use berth_agent::image::ImageError;
use tar::{Builder, EntryType, Header};

use super::{Machine, entry};

type Change = fn(&mut Builder<Vec<u8>>);

fn raw(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// Each with a part of what is said.
const HOSTILE: [(&str, Change); 9] = [
    ("leads upwards", |tar| raw(tar, "../escaped", EntryType::Regular, "", b"x")),
    ("leads upwards", |tar| raw(tar, "link", EntryType::Link, "../../../about.json", b"")),
    ("not in the layer", |tar| raw(tar, "link", EntryType::Link, "/etc/passwd", b"")),
    ("not in the layer", |tar| {
        raw(tar, "up", EntryType::Symlink, "/proc/self/root", b"");
        raw(tar, "link", EntryType::Link, "up/etc/passwd", b"");
    }),
    ("overlayfs", |tar| {
        let redirect: [(&str, &[u8]); 1] = [("SCHILY.xattr.trusted.overlay.redirect", b"/etc")];
        tar.append_pax_extensions(redirect).unwrap();
        raw(tar, "dir", EntryType::Directory, "", b"");
    }),
    ("leads upwards", |tar| {
        let path: [(&str, &[u8]); 1] = [("path", b"a/../../escaped")];
        tar.append_pax_extensions(path).unwrap();
        raw(tar, "innocent", EntryType::Regular, "", b"x");
    }),
    ("take more than 1048576 bytes", |tar| {
        raw(tar, "././@LongLink", EntryType::GNULongName, "", &vec![b'a'; 4 << 20])
    }),
    ("of a kind no layer has", |tar| raw(tar, "socket", EntryType::new(b'Z'), "", b"")),
    ("symbolic link", |tar| {
        raw(tar, "up", EntryType::Symlink, "..", b"");
        raw(tar, "up/.wh..wh..opq", EntryType::Regular, "", b"");
    }),
];

#[tokio::test]
async fn a_hostile_layer_must_be_refused_by_its_rule_and_leave_nothing() {
    let Some(machine) = Machine::new("hostile").await else { return };
    let layers = machine.disk.layers_dir();
    let before = fs::read_dir(&layers).unwrap().count();
    for (saying, change) in HOSTILE {
        let mut tar = Builder::new(Vec::new());
        entry(&mut tar, "fine", EntryType::Regular, 0, b"content");
        change(&mut tar);
        let tar = tar.into_inner().unwrap();
        let error = machine.images.import_tar(tar.as_slice()).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Refused(reason) if reason.contains(saying)),
            "{saying}: {error}"
        );
        assert_eq!((machine.left_in_tmp(), fs::read_dir(&layers).unwrap().count()), (0, before), "{saying}");
    }
    // Device nodes are no reason to refuse a layer: they are left out.
    let mut tar = Builder::new(Vec::new());
    raw(&mut tar, "sda", EntryType::Block, "", b"");
    entry(&mut tar, "fine", EntryType::Regular, 0, b"content");
    let layer = machine.images.import_tar(tar.into_inner().unwrap().as_slice()).await.unwrap();
    assert!(layer.path.join("fine").is_file() && !layer.path.join("sda").exists());
}

#[tokio::test]
async fn a_bomb_must_be_stopped_where_it_begins_to_be_one() {
    let Some(machine) = Machine::new("bomb").await else { return };
    // 128 MiB of zeros in some KiB: below the size of a large file, far beyond what anything real is compressed to.
    let mut tar = Builder::new(Vec::new());
    raw(&mut tar, "zeros", EntryType::Regular, "", &vec![0; 128 << 20]);
    let bomb = zstd::stream::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap();
    let error = machine.images.import_tar(bomb.as_slice()).await.unwrap_err();
    assert!(matches!(&error, ImageError::Refused(reason) if reason.contains("times its size")), "{error}");
    assert_eq!(machine.left_in_tmp(), 0);
}
