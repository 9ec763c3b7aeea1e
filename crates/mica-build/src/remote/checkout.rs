//! Making a checkout depend on nothing but the commit: modes without the umask, times without the clock.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mica_api::{Class, Error};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// Sets modes and times of everything in a checkout; returns the directory that is wanted.
///
/// # Errors
/// The subdirectory is not there, or is behind a symbolic link.
pub(super) fn settle(checkout: &Path, subdir: Option<&str>, seconds: i64) -> Result<PathBuf, Error> {
    let wanted = descend(checkout, subdir)?;
    set_all(checkout, seconds).map_err(|error| {
        Error::new(Class::of_io(&error), "cannot settle the checkout").why(error.to_string())
    })?;
    Ok(wanted)
}

/// Symbolic links of a repository lead anywhere: every component has to be a directory.
fn descend(checkout: &Path, subdir: Option<&str>) -> Result<PathBuf, Error> {
    let mut path = checkout.to_owned();
    for part in subdir.into_iter().flat_map(|subdir| subdir.split('/')) {
        path.push(part);
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if !is_directory {
            let subdir = subdir.unwrap_or_default();
            return Err(Error::new(
                Class::Build,
                format!("subdirectory {subdir:?} is no directory of the repository"),
            ));
        }
    }
    Ok(path)
}

fn set_all(checkout: &Path, seconds: i64) -> io::Result<()> {
    let mut directories = vec![checkout.to_owned()];
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                directories.push(path);
                continue;
            }
            if kind.is_file() {
                let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                fs::set_permissions(&path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
            }
            set_time(&path, seconds)?;
        }
    }
    // innermost last in the list: no later change touches a directory again
    directories.iter().rev().try_for_each(|directory| set_time(directory, seconds))
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
