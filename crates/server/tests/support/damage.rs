//! What one must know of a node's files to damage them on purpose; the log's layout is drawn in `quorate_storage::wal`.

use super::Node;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER: usize = 40;
const FRAME_HEADER: usize = 24;

/// The tables of a stopped node's store, the largest last.
pub fn tables(node: &Node) -> Vec<PathBuf> {
    let (mut tables, mut folders) = (Vec::new(), vec![node.data_dir.join("store")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().unwrap().ends_with("tables") {
                tables.push(path);
            }
        }
    }
    tables.sort_by_key(|path| path.metadata().unwrap().len());
    tables
}

/// The newest segment of a stopped node's log.
pub struct Segment {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// Where its frames begin.
    pub frames: Vec<usize>,
    /// Where they end.
    pub end: usize,
}

impl Segment {
    pub fn newest(node: &Node) -> Self {
        let path = node.segments().pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut frames = Vec::new();
        let mut at = HEADER;
        loop {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if length == 0 {
                return Self { path, bytes, frames, end: at };
            }
            frames.push(at);
            at = (at + FRAME_HEADER + length).next_multiple_of(8);
        }
    }

    /// A place in the payload of a frame that has frames before and behind it.
    pub fn middle(&self) -> (usize, usize) {
        assert!(self.frames.len() > 4, "{} frames", self.frames.len());
        let frame = self.frames[self.frames.len() / 2];
        (frame, frame + FRAME_HEADER + 1)
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        let file = std::fs::File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    }

    pub fn flip(&self, at: usize) {
        self.write(at, &[self.bytes[at] ^ 0x40]);
    }
}
