//! What people and programs are told at the end: [`text`], [`json`] and a [`page`] to look at, made of the same [`figures`] and [`series`].

mod curves;
mod figures;
mod json;
mod lanes;
mod page;
mod series;
mod text;
mod timeline;

use super::book::Written;
use super::judge::Verdict;
use super::leaders::Leaders;
use super::lives::Lives;
use super::timeline::Entry;
use figures::Figures;
use std::path::Path;

/// What files of a report are called.
pub(super) const HISTORY: &str = "history.jsonl";
const FILES: [&str; 3] = ["report.html", "report.json", "report.txt"];

/// A run.
pub(super) struct Report {
    pub(super) seed: u64,
    /// What draws the same faults once more.
    pub(super) command: String,
    /// Microseconds.
    pub(super) elapsed: u64,
    /// When the first violation ended the run, if it did.
    pub(super) stopped: Option<u64>,
    pub(super) timeline: Vec<Entry>,
    pub(super) lives: Lives,
    pub(super) leaders: Leaders,
    pub(super) written: Written,
    pub(super) verdict: Verdict,
}

/// A run in words and for programs.
pub(super) struct Told {
    pub(super) text: String,
    pub(super) json: String,
    page: String,
}

impl Report {
    pub(super) fn told(&self) -> Told {
        let figures = Figures::of(self);
        Told {
            text: text::text(self, &figures),
            json: json::lines(&json::json(self, &figures)),
            page: page::page(self, &figures),
        }
    }
}

impl Told {
    /// Into a folder that is there.
    pub(super) fn write(&self, folder: &Path) -> Result<(), String> {
        for (name, content) in FILES.into_iter().zip([&self.page, &self.json, &self.text]) {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
