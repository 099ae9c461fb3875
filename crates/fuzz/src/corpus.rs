//! Inputs that are kept in the repository: `corpus/TARGET/NAME`, named for what was wrong. Seeds are not among them: those are made anew from their
//! generators, and so never of an older form.

use std::io;
use std::path::{Path, PathBuf};

/// An input and what it is called.
pub type Kept = (String, Vec<u8>);

/// Where the inputs of a target are.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, by name.
pub fn of(target: &str) -> io::Result<Vec<Kept>> {
    let entries = match std::fs::read_dir(folder(target)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry?;
        kept.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    kept.sort();
    Ok(kept)
}
