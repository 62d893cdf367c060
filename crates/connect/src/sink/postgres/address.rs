//! A connection string, understood: whom to connect to, and whether under TLS.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tenure_core::flow::{Reason, supervisor::Code};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A peer that acknowledges nothing for this long is gone.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// Where a PostgreSQL sink is. Never shows its password.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    /// None: plain.
    pub(super) tls: Option<MakeRustlsConnect>,
}

impl Address {
    /// Reads a connection string. Encryption is used where `sslmode` asks for it (`require`,
    /// `verify-ca`, `verify-full`), and then the certificate is always checked, against the
    /// system's roots and those in `sslrootcert`.
    pub(super) fn parse(url: &str) -> Result<Address, Reason> {
        let (url, asked) = take_tls(url);
        // The library's error may quote the string; it may hold a password.
        let bad = |_| {
            refuses("the connection string cannot be read; write postgres://user@host:5432/database?sslmode=require")
        };
        let mut config: Config = url.parse().map_err(bad)?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENT_MAX);
        }
        config.keepalives_idle(SILENT_MAX);
        let encrypted = asked.verify || config.get_ssl_mode() == SslMode::Require;
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        let tls = encrypted.then(|| tls(asked.root_file.as_deref())).transpose()?;
        Ok(Address { config, tls })
    }
}

/// `host:port/database`, for people.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        write!(f, "{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

#[derive(Default)]
struct AskedTls {
    verify: bool,
    root_file: Option<String>,
}

/// Takes out what the library does not know: `sslrootcert`, and the modes that verify.
fn take_tls(url: &str) -> (String, AskedTls) {
    let mut asked = AskedTls::default();
    let mut keep = |part: &&str| match part.split_once('=') {
        Some(("sslrootcert", file)) => {
            asked.root_file = Some(file.to_owned());
            false
        }
        Some(("sslmode", "verify-ca" | "verify-full")) => {
            asked.verify = true;
            false
        }
        _ => true,
    };
    let left = match url.split_once('?') {
        Some((base, options)) => {
            let left: Vec<&str> = options.split('&').filter(&mut keep).collect();
            if left.is_empty() { base.to_owned() } else { format!("{base}?{}", left.join("&")) }
        }
        None if url.contains("://") => url.to_owned(),
        None => url.split(' ').filter(&mut keep).collect::<Vec<&str>>().join(" "),
    };
    (left, asked)
}

fn tls(root_file: Option<&str>) -> Result<MakeRustlsConnect, Reason> {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that cannot be read are as good as absent.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = root_file {
        let unreadable = |error: &dyn fmt::Display| refuses(&format!("sslrootcert {file}: {error}"));
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuses(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whose flow it is adds which sink that was.
fn refuses(detail: &str) -> Reason {
    Reason::new(Code::SinkRefuses, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_used_where_sslmode_asks_for_it() {
        let encrypted = |url: &str| Address::parse(url).unwrap().tls.is_some();
        assert!(!encrypted("postgres://u@h/d"));
        assert!(!encrypted("postgres://u@h/d?sslmode=prefer"));
        assert!(encrypted("postgres://u@h/d?sslmode=require"));
        assert!(encrypted("postgres://u@h/d?connect_timeout=1&sslmode=verify-full"));
        assert!(encrypted("host=h sslmode=verify-ca user=u"));
    }

    #[test]
    fn nothing_shown_holds_the_password() {
        let address = Address::parse("postgres://u:hunter2@h:1234/d").unwrap();
        assert_eq!(address.to_string(), "h:1234/d");
        let error = Address::parse("postgres://u:hunter2@h:port/d").err().unwrap();
        assert!(!error.detail.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_root_file_that_is_missing_is_named() {
        let error = Address::parse("postgres://h/d?sslmode=require&sslrootcert=/no/ca.pem").err().unwrap();
        assert!(error.detail.contains("/no/ca.pem"), "{error}");
    }
}
