//! Secrets are references; here they become values, on the node that needs them.

use tenure_core::flow::{Reason, spec::Secret, supervisor::Code};

/// The secret's value, without surrounding white space.
///
/// # Errors
/// [`Code::SecretMissing`], naming the variable or the file and never a value.
pub(super) fn resolve(secret: &Secret) -> Result<String, Reason> {
    let missing = |detail: String| Reason::new(Code::SecretMissing, detail);
    let value = match secret {
        Secret::Env(name) => std::env::var(name).map_err(|_| {
            missing(format!("the environment variable {name} is not set on this node (or is not text)"))
        })?,
        Secret::File(path) => std::fs::read_to_string(path)
            .map_err(|error| missing(format!("the file {path} cannot be read on this node: {error}")))?,
    };
    let value = value.trim();
    if value.is_empty() {
        let place = match secret {
            Secret::Env(name) => format!("the environment variable {name}"),
            Secret::File(path) => format!("the file {path}"),
        };
        return Err(missing(format!("{place} is empty on this node")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_secret_names_its_place() {
        let error = resolve(&Secret::Env("TENURE_TEST_NOT_SET".into())).unwrap_err();
        assert_eq!(error.code, Code::SecretMissing);
        assert!(error.detail.contains("TENURE_TEST_NOT_SET"), "{error}");
        let error = resolve(&Secret::File("/no/such/file".into())).unwrap_err();
        assert!(error.detail.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_secret_file_may_end_with_a_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://x\n").unwrap();
        let secret = Secret::File(file.path().to_str().unwrap().into());
        assert_eq!(resolve(&secret).unwrap(), "postgres://x");
        std::fs::write(file.path(), " \n").unwrap();
        assert!(resolve(&secret).unwrap_err().detail.ends_with("is empty on this node"));
    }
}
