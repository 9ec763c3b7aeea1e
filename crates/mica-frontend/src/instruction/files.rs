//! WORKDIR, and the owners and modes that file instructions share.

use mica_dockerfile::Command;
use mica_solve::{FileAction, FileOp, MakeDirectory, Op, Owner, OwnerId};

use crate::history::Layer;
use crate::stage::{Inputs, StageConverter};
use crate::{Problem, paths};

/// Mode of directories that instructions make.
const DIRECTORY_MODE: u32 = 0o755;

/// `user[:group]`; a numeric user alone is its own group (C13). Nothing for an empty text.
pub(super) fn owner(text: &str) -> Option<Owner> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    if user.is_empty() && group.is_none() {
        return None;
    }
    let user = if user.is_empty() { OwnerId::Id(0) } else { owner_id(user) };
    let group = match (group, &user) {
        (Some(group), _) => Some(owner_id(group)),
        (None, OwnerId::Id(id)) => Some(OwnerId::Id(*id)),
        (None, OwnerId::Name(_)) => None,
    };
    Some(Owner { user, group })
}

fn owner_id(text: &str) -> OwnerId {
    // Go reads 32-bit signed numbers here; what does not fit is a name, and then unknown.
    match text.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => OwnerId::Id(id),
        None => OwnerId::Name(text.to_owned()),
    }
}

impl StageConverter<'_, '_> {
    /// I1: a layer unless the result is the root, which is always there.
    pub(crate) fn workdir(&mut self, command: &Command, path: &str) -> Result<(), Problem> {
        // An absolute path is stored as written: the reference cleans only what it joins. Nothing is where we are.
        let path = match self.word(path)? {
            path if path.starts_with('/') => path,
            path if path.is_empty() => self.state.workdir().to_owned(),
            path => paths::join(self.state.workdir(), &path),
        };
        let created_by = format!("WORKDIR {path}");
        let directory = paths::clean(&path);
        self.state.config.config.working_dir = path;
        if directory == "/" {
            self.commit(created_by, Layer::None);
            return Ok(());
        }
        let (prefix, title) = self.next_title(&self.expanded_title(command));
        let mut inputs = Inputs::default();
        let base = inputs.add(self.state.root);
        let action = FileAction::MakeDirectory(MakeDirectory {
            path: directory,
            mode: DIRECTORY_MODE,
            owner: owner(&self.state.config.config.user),
            created_seconds: self.shared.seconds,
        });
        let op = Op::File(FileOp { base, actions: vec![action] });
        // WORKDIR may hit the cache even with --no-cache (K10).
        let vertex = self.add(op, inputs, format!("{prefix}{title}"), command.origin.location, false);
        self.state.root = Some(vertex);
        self.commit(created_by, Layer::New);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_its_own_group_and_a_name_alone_has_none() {
        let id = OwnerId::Id;
        let name = |text: &str| OwnerId::Name(text.to_owned());
        assert_eq!(owner("7"), Some(Owner { user: id(7), group: Some(id(7)) }));
        assert_eq!(owner("7:8"), Some(Owner { user: id(7), group: Some(id(8)) }));
        assert_eq!(owner("app"), Some(Owner { user: name("app"), group: None }));
        assert_eq!(owner("app:extra"), Some(Owner { user: name("app"), group: Some(name("extra")) }));
        assert_eq!(owner("99999999999"), Some(Owner { user: name("99999999999"), group: None }));
        assert_eq!(owner(""), None);
    }
}
