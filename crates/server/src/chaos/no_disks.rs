//! Where there is no FUSE as we know it there are no disks that fail as they are told: none can be made.

use super::ailments::Ailment;
use std::convert::Infallible;
use std::path::Path;

const WHY: &str = "disks that fail as they are told need Linux";

/// Never there.
pub(super) struct DataDisk(Infallible);

pub(super) fn possible(_: &Path) -> Result<(), String> {
    Err(WHY.into())
}

impl DataDisk {
    pub(super) fn mount(_: &Path, _: &Path) -> Result<Self, String> {
        Err(WHY.into())
    }

    pub(super) fn backing(&self) -> &Path {
        match self.0 {}
    }

    pub(super) fn ail(&self, _: &Ailment) -> Result<(), String> {
        match self.0 {}
    }

    pub(super) fn mend(&self) {
        match self.0 {}
    }

    pub(super) fn settle(&self) -> Result<(), String> {
        match self.0 {}
    }

    pub(super) fn copy(&self, _: &Path) -> std::io::Result<()> {
        match self.0 {}
    }
}
