//! How a process comes to its store: which ids it has, which namespaces it enters, where the store is.
//!
//! Runs in the single-threaded prologue of `main`: a user namespace can only be made by a process without threads.

use std::fs;
use std::path::{Path, PathBuf};

use mica_api::{Class, Error};
use mica_store::{DriverKind, Flavour, IdMap, Store};
use mica_sys::namespace::{self, IdMode, IdRange, UserNamespaceError};

/// Whose process this is, as the caller's environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Login name, for `/etc/subuid`; empty if unknown.
    pub name: String,
}

/// The mode a process runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Which ids there are.
    pub ids: IdMode,
    /// Who called.
    pub caller: Caller,
    /// What the mode limits, in the user's words.
    pub limits: Vec<String>,
}

/// Enters the namespaces that the caller's rights demand.
///
/// Root stays root, others become root of a user namespace: with their subordinate ids, or, without any, with a single
/// id. All get a mount namespace of their own, so that the kernel cleans up after a kill.
///
/// # Errors
/// When the kernel or a security module refuses user namespaces; the hint says what to do.
pub fn enter(caller: Caller) -> Result<Mode, Error> {
    let (ids, limits) = choose(&caller);
    namespace::enter_user_namespace(&ids).map_err(|error| refused(&error))?;
    namespace::unshare_mounts().map_err(|error| {
        Error::new(Class::Denied, "cannot create a mount namespace").why(error.to_string())
    })?;
    Ok(Mode { ids, caller, limits })
}

fn choose(caller: &Caller) -> (IdMode, Vec<String>) {
    if caller.uid == 0 {
        return (IdMode::Root, Vec::new());
    }
    let first = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        namespace::subordinate_ranges(&caller.name, caller.uid, &text).first().copied()
    };
    let helpers = ["newuidmap", "newgidmap"].iter().all(|name| is_in_path(name));
    match (first("/etc/subuid"), first("/etc/subgid"), helpers) {
        (Some(uid_range), Some(gid_range), true) => {
            (IdMode::SubordinateIds { uid_range, gid_range }, Vec::new())
        }
        (uids, gids, helpers) => (IdMode::SingleId, vec![single_id_limits(caller, uids, gids, helpers)]),
    }
}

fn single_id_limits(caller: &Caller, uids: Option<IdRange>, gids: Option<IdRange>, helpers: bool) -> String {
    let reason = match (uids, gids, helpers) {
        (Some(_), Some(_), false) => "newuidmap and newgidmap are not installed (package uidmap)".to_owned(),
        _ => format!("/etc/subuid and /etc/subgid have no range for {}", shown(caller)),
    };
    format!(
        "single-id mode: {reason}; files keep their owners in images, but processes in containers can only be root"
    )
}

fn shown(caller: &Caller) -> String {
    if caller.name.is_empty() { format!("uid {}", caller.uid) } else { caller.name.clone() }
}

/// The helpers live where administrators put them, not where the caller's environment says.
fn is_in_path(name: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(name).exists())
}

fn refused(error: &UserNamespaceError) -> Error {
    let restricted = fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        .is_ok_and(|text| text.trim() == "1");
    let hint = if restricted {
        "this system restricts user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give mica \
         an AppArmor profile with `userns,`"
    } else {
        "run as root, or allow user namespaces: sudo sysctl user.max_user_namespaces=28633"
    };
    let mut shown = Error::new(Class::Denied, error.to_string()).hint(hint);
    shown.why = std::error::Error::source(error).map(ToString::to_string);
    shown
}

/// Opens the store of this mode, making it if there is none.
///
/// # Errors
/// When it belongs to another kind of process, or cannot be made.
pub(crate) fn open_store(
    root: &Path,
    mode: &Mode,
    overlay_works: impl FnOnce(bool) -> bool,
) -> Result<Store, Error> {
    if let Some(flavour) = Store::flavour_at(root)? {
        let expected = flavour_of(mode, flavour.driver);
        return Ok(Store::open(root, &expected)?);
    }
    Ok(Store::open(root, &flavour_of(mode, best_driver(mode, overlay_works)))?)
}

/// Repairs what keeps the store of this mode from being opened; answers what was replaced. Makes no store.
///
/// # Errors
/// When it belongs to another kind of process, or cannot be repaired.
pub(crate) fn repair_store(
    root: &Path,
    mode: &Mode,
    overlay_works: impl FnOnce(bool) -> bool,
) -> Result<Vec<PathBuf>, Error> {
    let driver = match Store::flavour_at(root) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(flavour)) => flavour.driver,
        // What kind of store it was is in the metadata too, which then have the last word.
        Err(_) => best_driver(mode, overlay_works),
    };
    Ok(mica_store::repair_unopenable(root, &flavour_of(mode, driver))?)
}

fn best_driver(mode: &Mode, overlay_works: impl FnOnce(bool) -> bool) -> DriverKind {
    let user = mode.ids != IdMode::Root;
    match (overlay_works(user), user) {
        (true, false) => DriverKind::OverlayTrusted,
        (true, true) => DriverKind::OverlayUser,
        (false, _) => DriverKind::Copy,
    }
}

fn flavour_of(mode: &Mode, driver: DriverKind) -> Flavour {
    let id_map = match &mode.ids {
        IdMode::Root => IdMap::Host,
        IdMode::SingleId => IdMap::SingleId,
        IdMode::SubordinateIds { uid_range, gid_range } => IdMap::Mapped {
            uid_ranges: vec![(0, mode.caller.uid, 1), (1, uid_range.start, uid_range.count)],
            gid_ranges: vec![(0, mode.caller.gid, 1), (1, gid_range.start, gid_range.count)],
        },
    };
    Flavour { driver, owner_uid: mode.caller.uid, id_map }
}
