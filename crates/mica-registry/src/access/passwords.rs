//! Passwords: an htpasswd file with bcrypt hashes, read again when it changes.
//!
//! bcrypt is slow on purpose, so what was found right is remembered for some minutes, under a keyed hash that is worth
//! nothing outside this process. An unknown user costs as much as a wrong password. At most half of the cores check
//! passwords, and only so many wait for them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use mica_api::{Class, Fault};
use mica_oci::{Algorithm, Digest, Hasher};
use tokio::sync::Semaphore;

/// How long a password that was right is not checked again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Checks that may wait, per one that runs.
const QUEUE: usize = 16;
/// bcrypt takes no more.
const PASSWORD_MAX: usize = 72;
/// What a name is checked against that is not in the file, when the file is empty.
const COST: u32 = 10;

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line is not `name:hash` with a bcrypt hash.
    #[error("{}:{line}: not of the form NAME:BCRYPT-HASH (`htpasswd -nB NAME` makes one)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The system has no random numbers, or the hash cannot be made.
    #[error("cannot prepare the checking of passwords: {0}")]
    Prepare(String),
}

impl Fault for AccessError {
    fn class(&self) -> Class {
        match self {
            Self::Read { source, .. } => Class::of_io(source),
            Self::Line { .. } => Class::Invalid,
            Self::Prepare(_) => Class::Internal,
        }
    }
}

/// Why somebody is not who they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckError {
    Wrong,
    Busy,
}

/// Names and the hashes of their passwords.
pub struct Passwords {
    path: PathBuf,
    key: [u8; 32],
    state: Mutex<State>,
    checking: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

struct State {
    users: HashMap<String, String>,
    /// Checked for names that are unknown.
    dummy: String,
    modified: Option<SystemTime>,
    looked: Instant,
    right: HashMap<Digest, Instant>,
}

impl Passwords {
    /// Reads an htpasswd file.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| AccessError::Prepare(errno.to_string()))?;
        let (users, modified) = load(path)?;
        let dummy = dummy(&users)?;
        let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let state = State { users, dummy, modified, looked: Instant::now(), right: HashMap::new() };
        Ok(Self {
            path: path.to_owned(),
            key,
            state: Mutex::new(state),
            checking: Arc::new(Semaphore::new(threads)),
            waiting: Arc::new(Semaphore::new(threads * QUEUE)),
        })
    }

    /// Checks an `Authorization` header; returns the user.
    pub(super) async fn check(&self, header: &str) -> Result<String, CheckError> {
        let (user, password) = credentials(header).ok_or(CheckError::Wrong)?;
        let proof = self.proof(&user, &password);
        let (hash, is_known) = {
            let mut state = self.look();
            if state.right.get(&proof).is_some_and(|since| since.elapsed() < REMEMBERED) {
                return Ok(user);
            }
            state.right.retain(|_, since| since.elapsed() < REMEMBERED);
            let known = state.users.get(&user).cloned();
            (known.clone().unwrap_or_else(|| state.dummy.clone()), known.is_some())
        };
        let _place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| CheckError::Busy)?;
        let _core = self.checking.acquire().await.map_err(|_| CheckError::Busy)?;
        let checked = tokio::task::spawn_blocking(move || {
            let bytes = password.as_bytes();
            bytes.len() <= PASSWORD_MAX && bcrypt::verify(bytes, &hash).unwrap_or(false)
        });
        let is_right = checked.await.unwrap_or(false) && is_known;
        if !is_right {
            return Err(CheckError::Wrong);
        }
        self.lock().right.insert(proof, Instant::now());
        Ok(user)
    }

    /// Whether somebody is in the file.
    pub(super) fn knows(&self, user: &str) -> bool {
        self.look().users.contains_key(user)
    }

    fn proof(&self, user: &str, password: &str) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&self.key);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.update(password.as_bytes());
        hasher.finish()
    }

    /// The state, after a look at the file. A file that cannot be read leaves everything as it was.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.looked.elapsed() < LOOK {
            return state;
        }
        state.looked = Instant::now();
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified == state.modified {
            return state;
        }
        if let Ok((users, modified)) = load(&self.path) {
            if let Ok(dummy) = dummy(&users) {
                state.dummy = dummy;
            }
            (state.users, state.modified) = (users, modified);
            state.right.clear();
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("path", &self.path).finish_non_exhaustive()
    }
}

fn load(path: &Path) -> Result<(HashMap<String, String>, Option<SystemTime>), AccessError> {
    let read = |source| AccessError::Read { path: path.to_owned(), source };
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(read)?;
    let text = std::fs::read_to_string(path).map_err(read)?;
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || AccessError::Line { path: path.to_owned(), line: index + 1 };
        let (name, hash) = line.split_once(':').ok_or_else(bad)?;
        hash.parse::<bcrypt::HashParts>().map_err(|_| bad())?;
        users.insert(name.to_owned(), hash.to_owned());
    }
    Ok((users, Some(modified)))
}

/// A hash that nothing matches, as expensive as the dearest in the file.
fn dummy(users: &HashMap<String, String>) -> Result<String, AccessError> {
    let costs = users.values().filter_map(|hash| hash.parse::<bcrypt::HashParts>().ok());
    let cost = costs.map(|parts| parts.get_cost()).max().unwrap_or(COST);
    bcrypt::hash("no password", cost).map_err(|error| AccessError::Prepare(error.to_string()))
}

/// Name and password of a `Basic` header.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, text) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {text}")
    }

    #[tokio::test]
    async fn passwords_are_right_wrong_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, format!("# users\nalice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
        let passwords = Passwords::read(&path).unwrap();
        assert_eq!(passwords.check(&basic("alice", "secret")).await, Ok("alice".to_owned()));
        assert_eq!(passwords.check(&basic("alice", "wrong")).await, Err(CheckError::Wrong));
        assert_eq!(passwords.check(&basic("bob", "no password")).await, Err(CheckError::Wrong));
        assert_eq!(passwords.check("Bearer x").await, Err(CheckError::Wrong));
        std::fs::write(&path, format!("alice:{}\n", bcrypt::hash("other", 4).unwrap())).unwrap();
        passwords.lock().looked = Instant::now().checked_sub(LOOK * 2).unwrap();
        passwords.lock().modified = None;
        assert_eq!(passwords.check(&basic("alice", "secret")).await, Err(CheckError::Wrong));
        assert_eq!(passwords.check(&basic("alice", "other")).await, Ok("alice".to_owned()));
    }

    #[test]
    fn a_line_without_a_bcrypt_hash_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, "\nalice:{SHA}abc\n").unwrap();
        assert!(matches!(Passwords::read(&path), Err(AccessError::Line { line: 2, .. })));
    }
}
