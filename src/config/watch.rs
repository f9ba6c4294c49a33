//! Notices that the configuration, or a file it was made from, has changed.
//!
//! Looking is polling: a Kubernetes volume is a symbolic link that is swapped, editors replace
//! files, and network file systems send no events, but a look at a handful of files once a second
//! sees all of that. A change counts when two looks in a row agree, so that a file is not read
//! while it is being written.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Loaded, content_hash, sources};

/// Watches the files of one configuration.
#[derive(Debug)]
pub struct Watch {
    config: PathBuf,
    files: Vec<PathBuf>,
    /// Of the content that was last reported, or loaded.
    known: u64,
    /// What the last look saw.
    seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    identities: Vec<Option<Identity>>,
    content: u64,
}

/// What a file is without reading it: cheap to compare, and different after every usual change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// With all symbolic links followed.
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// Watches from the state that was loaded: a change between loading and now is noticed.
    pub fn new(config: &Path, loaded: &Loaded) -> Self {
        let files = loaded.settings.watched_files.clone();
        Self { config: config.to_owned(), files, known: loaded.content_hash, seen: None }
    }

    /// Goes on with the files of a new configuration.
    pub fn follow(&mut self, loaded: &Loaded) {
        *self = Self::new(&self.config, loaded);
    }

    /// Whether there is something new since the last configuration, and it has settled. Says so
    /// once for each content, so that a broken file is not reported every second. To be called
    /// about once a second.
    pub fn changed(&mut self) -> bool {
        let now = self.look();
        let settled = self.seen.as_ref() == Some(&now);
        let news = settled && now.content != self.known;
        if news {
            self.known = now.content;
        }
        self.seen = Some(now);
        news
    }

    /// Reads the files only if they are not the ones of the last look.
    fn look(&self) -> Seen {
        let identities: Vec<_> =
            std::iter::once(&self.config).chain(&self.files).map(|path| identity(path)).collect();
        match &self.seen {
            Some(seen) if seen.identities == identities => seen.clone(),
            Some(_) | None => {
                let text = sources::read_bounded(&self.config).unwrap_or_default();
                Seen { identities, content: content_hash(&text, &self.files) }
            }
        }
    }
}

/// `None` while the file is not there, such as in the middle of being replaced.
fn identity(path: &Path) -> Option<Identity> {
    let path = path.canonicalize().ok()?;
    let metadata: Metadata = path.metadata().ok()?;
    Some(Identity {
        path,
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::load;

    const SMALL: &str = "[upstreams.a]\nurl = \"https://a.example\"\n";
    const OTHER: &str = "[upstreams.a]\nurl = \"https://b.example\"\n";

    fn watch(path: &Path) -> Watch {
        Watch::new(path, &load(path, &|_| None).unwrap())
    }

    #[test]
    fn an_untouched_file_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, SMALL).unwrap();
        let mut watch = watch(&path);
        assert!((0..4).all(|_| !watch.changed()));
    }

    #[test]
    fn a_change_is_reported_once_and_only_when_two_looks_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, SMALL).unwrap();
        let mut watch = watch(&path);
        fs::write(&path, OTHER).unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
    }

    #[test]
    fn a_file_that_is_still_being_written_is_not_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, SMALL).unwrap();
        let mut watch = watch(&path);
        for length in 1..OTHER.len() {
            fs::write(&path, &OTHER[..length]).unwrap();
            assert!(!watch.changed());
        }
    }

    #[test]
    fn touching_a_file_without_changing_it_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, SMALL).unwrap();
        let mut watch = watch(&path);
        fs::remove_file(&path).unwrap();
        assert!(!watch.changed());
        fs::write(&path, SMALL).unwrap();
        assert!((0..3).all(|_| !watch.changed()));
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("one", SMALL), ("two", OTHER)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("config.toml"), text).unwrap();
        }
        // As a Kubernetes ConfigMap is laid out.
        symlink("one", folder.path().join("..data")).unwrap();
        symlink("..data/config.toml", folder.path().join("config.toml")).unwrap();
        let mut watch = watch(&folder.path().join("config.toml"));
        assert!(!watch.changed());
        symlink("two", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        assert_eq!([watch.changed(), watch.changed()], [false, true]);
    }

    #[test]
    fn a_changed_secret_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(folder.path().join("secret"), "one\n").unwrap();
        fs::write(&path, format!("{SMALL}credential = {{ file = \"./secret\" }}\n")).unwrap();
        let mut watch = watch(&path);
        assert!(!watch.changed());
        fs::write(folder.path().join("secret"), "two2\n").unwrap();
        assert_eq!([watch.changed(), watch.changed()], [false, true]);
    }
}
