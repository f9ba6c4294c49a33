//! Secrets and certificates: what a configuration takes from elsewhere.
//!
//! A secret never appears in a message, not even in part. The name of its source may, unless that
//! looks like a secret typed in the wrong place. Every file that is used is listed, so that its
//! change leads to a reload.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;

use super::kind::{header_name, is_field_value_byte};
use super::problem::Fault;
use super::read::Section;
use super::scope::{EffectiveValue, Resolver, Scope};
use super::secret::Secret;
use super::settings::CredentialConfig;
use super::spec;

/// Secrets and certificates are small; more is the wrong file. 1 MiB holds any bundle of roots.
pub(super) const FILE_MAX: u64 = 1 << 20;

/// Reads environment variables.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// The world outside the file.
pub(super) struct Sources<'e> {
    env: &'e Environment<'e>,
    /// Relative files are sought from here.
    folder: PathBuf,
    /// Every file that was named.
    pub(super) watched: Vec<PathBuf>,
}

/// A secret, and where it was.
pub(super) struct FoundSecret {
    /// Alone.
    pub(super) secret: String,
    /// What its source may be called.
    pub(super) source: String,
    /// If it was in a file.
    pub(super) file: Option<PathBuf>,
}

/// The value that would be sent by what the secret's file holds now; `None` if it holds none, as in
/// the middle of being written, or there is no file. Reads the file system.
pub fn read_again(credential: &CredentialConfig) -> Option<Secret> {
    let bytes = read_bounded(credential.file.as_deref()?).ok()?;
    let secret = std::str::from_utf8(trim_line_end(&bytes)).ok().filter(|it| !it.is_empty())?;
    Some(Secret::new(&format!("{}{secret}", credential.prefix)))
}

impl<'e> Sources<'e> {
    pub(super) fn new(env: &'e Environment<'e>, folder: &Path) -> Self {
        Self { env, folder: folder.to_owned(), watched: Vec::new() }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The secret that `file` or `env` of a table names.
    pub(super) fn secret(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
    ) -> Option<FoundSecret> {
        let exactly_one = r#"Write exactly one of file = "/run/secrets/NAME" and env = "NAME"."#;
        match (scope.depth("file"), scope.depth("env")) {
            (Some(_), Some(_)) => {
                let (path, span) = scope.place("env");
                resolver.notes.problem(
                    &span,
                    &path,
                    None,
                    Fault::new("file and env name two sources for one secret", exactly_one),
                );
                None
            }
            (None, None) => {
                let (_, span) = scope.place("file");
                resolver.notes.problem(
                    &span,
                    &scope.path,
                    None,
                    Fault::new("it does not say where the secret is", exactly_one),
                );
                None
            }
            (Some(_), None) => self.secret_from_file(resolver, scope),
            (None, Some(_)) => self.secret_from_env(resolver, scope),
        }
    }

    /// The fields with secrets that the tables `headers.NAME` of a table ask for.
    pub(super) fn fields(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        table: Option<&Section>,
    ) -> Vec<(String, Secret)> {
        let sections = table.map_or(&[][..], |table| table.named("headers"));
        let read = sections.iter().filter_map(|(name, section)| {
            let scope = Scope::new(section, &[], spec::SECRET_HEADER);
            let name = header_name(name).map_err(|fault| {
                resolver.notes.problem(&scope.span, &scope.path, None, fault);
            });
            let prefix: String = resolver.value(&scope, "prefix");
            let FoundSecret { secret, source, .. } = self.secret(resolver, &scope)?;
            let origin = format!("{source}, {}", resolver.notes.place(&scope.span));
            let path = scope.path;
            resolver.effective.push(EffectiveValue { path, value: "***".into(), origin });
            Some((name.ok()?, Secret::new(&format!("{prefix}{secret}"))))
        });
        read.collect()
    }

    /// A file that must be there, with at least one of what it is for, in PEM.
    pub(super) fn pem_file<T: PemObject>(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
        name: &str,
        what: &str,
    ) -> Option<PathBuf> {
        let text: String = resolver.optional(scope, name)?;
        let (path, bytes) = self.read(resolver, scope, name, &text)?;
        if T::pem_slice_iter(&bytes).next().is_none_or(|first| first.is_err()) {
            let fix = format!("Name a file with a line -----BEGIN {what}-----.");
            let fault =
                Fault::new(format!("there is no {} in it in PEM", what.to_lowercase()), fix);
            let (path, span) = scope.place(name);
            resolver.notes.problem(&span, &path, None, fault);
            return None;
        }
        Some(path)
    }

    fn secret_from_file(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
    ) -> Option<FoundSecret> {
        let name: String = resolver.optional(scope, "file")?;
        let (path, bytes) = self.read(resolver, scope, "file", &name)?;
        let secret = self.checked(resolver, scope, "file", trim_line_end(&bytes))?;
        Some(FoundSecret { secret, source: format!("file {name}"), file: Some(path) })
    }

    fn secret_from_env(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
    ) -> Option<FoundSecret> {
        let name = scope.peek_as::<String>("env")?;
        let value = (self.env)(&name).unwrap_or_default();
        if value.is_empty() {
            let (path, span) = scope.place("env");
            // Variables have capital names; anything else may be the secret itself.
            let shown =
                name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            let fix = "Set it for this process, or name another variable. Its name stands here, not its value.";
            resolver.notes.problem(
                &span,
                &path,
                shown.then(|| format!("{name:?}")),
                Fault::new("that environment variable is not set or is empty", fix),
            );
            return None;
        }
        let _: Option<String> = resolver.optional(scope, "env");
        let secret = self.checked(resolver, scope, "env", trim_line_end(value.as_bytes()))?;
        Some(FoundSecret { secret, source: format!("env {name}"), file: None })
    }

    fn checked(
        &self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
        name: &str,
        secret: &[u8],
    ) -> Option<String> {
        let fault = if secret.is_empty() {
            Fault::new("the secret there is empty", "Put the secret there; nothing else is needed.")
        } else if secret.contains(&b'\n') || secret.contains(&b'\r') {
            Fault::new(
                "the secret there has a line break inside",
                "Put the secret alone there, on one line.",
            )
        } else if !secret.iter().all(|byte| is_field_value_byte(*byte)) {
            Fault::new(
                "the secret there has a character that cannot stand in a header",
                "Only visible ASCII characters can. Look for invisible ones, and for another encoding.",
            )
        } else if secret.trim_ascii().len() != secret.len() {
            Fault::new(
                "the secret there begins or ends with a blank, which would be lost on the way",
                "Take the blank away.",
            )
        } else {
            return String::from_utf8(secret.to_vec()).ok();
        };
        let (path, span) = scope.place(name);
        resolver.notes.problem(&span, &path, None, fault);
        None
    }

    /// The bytes of a file that must be there and have something in it, and where it is.
    pub(super) fn read(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        scope: &Scope<'_>,
        name: &str,
        text: &str,
    ) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.folder.join(text);
        let fault = match read_bounded(&path) {
            Ok(bytes) if bytes.is_empty() => {
                Fault::new("that file is empty", "Fill it, or name another one.")
            }
            Ok(bytes) if bytes.len() as u64 > FILE_MAX => {
                Fault::new("that file is larger than 1 MiB", "Name the right file.")
            }
            Ok(bytes) => {
                self.watched.push(path.clone());
                return Some((path, bytes));
            }
            Err(error) => unreadable(&error),
        };
        let (setting, span) = scope.place(name);
        // A bare word may be the secret itself, typed where its file belongs.
        let is_path = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        resolver.notes.problem(&span, &setting, is_path.then(|| format!("{text:?}")), fault);
        None
    }
}

/// Why a file could not be read, and what to do.
#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library adds kinds as it likes")]
pub(super) fn unreadable(error: &std::io::Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound => {
            Fault::new("there is no such file", "Create it, mount it, or correct the name.")
        }
        ErrorKind::PermissionDenied => {
            Fault::new("this process may not read that file", "Give its user the right to read it.")
        }
        ErrorKind::IsADirectory => Fault::new("that is a folder", "Name a file in it."),
        _ => Fault::new(
            format!("that file cannot be read ({error})"),
            "Look at the file and its file system.",
        ),
    }
}

/// A whole file, or its beginning where it is larger than any configuration can be.
pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    // A pipe would hold us up, and give nothing when it is read again to see whether it changed.
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Editors and `echo` end files with a line break that is not part of the secret.
fn trim_line_end(bytes: &[u8]) -> &[u8] {
    let end =
        bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or(bytes)
}
