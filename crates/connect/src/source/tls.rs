//! Whom a source trusts.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tenure_core::flow::{Reason, supervisor::Code};

/// TLS settings by the file of further authorities. Shared by all connections that use the same
/// file: a set of roots is far larger than a connection.
#[derive(Clone, Default)]
pub(super) struct Trust(Arc<Mutex<HashMap<Option<String>, Known>>>);

struct Known {
    /// When the file was last changed, so that a renewed one is read again.
    changed: Option<SystemTime>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// The system's roots, and those of the PEM file `further`. The first use reads files.
    pub(super) async fn config(&self, further: Option<&str>) -> Result<Arc<ClientConfig>, Reason> {
        let (trust, further) = (self.clone(), further.map(str::to_owned));
        let read = tokio::task::spawn_blocking(move || trust.read(further));
        read.await.unwrap_or_else(|gone| Err(Reason::new(Code::SourceFailed, format!("reading certificates: {gone}"))))
    }

    fn read(&self, further: Option<String>) -> Result<Arc<ClientConfig>, Reason> {
        let changed = further.as_ref().and_then(|path| Path::new(path).metadata().ok()?.modified().ok());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&further).filter(|known| known.changed == changed) {
            return Ok(same.config.clone());
        }
        let config = Arc::new(client(roots(further.as_deref())?)?);
        known.insert(further, Known { changed, config: config.clone() });
        Ok(config)
    }
}

fn roots(further: Option<&str>) -> Result<RootCertStore, Reason> {
    let mut roots = RootCertStore::empty();
    // One bad certificate of the system's is no reason to refuse the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = further {
        for certificate in authorities(path)? {
            roots.add(certificate).map_err(|error| bad_file(path, &error))?;
        }
    }
    if roots.is_empty() {
        let detail = "this node trusts no certificate authority; install ca-certificates, or give tls_ca";
        return Err(Reason::new(Code::SourceFailed, detail));
    }
    Ok(roots)
}

fn authorities(path: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| bad_file(path, &error))?;
    if certificates.is_empty() { Err(bad_file(path, &"it holds no certificate")) } else { Ok(certificates) }
}

fn bad_file(path: &str, error: &dyn std::fmt::Display) -> Reason {
    Reason::new(Code::SourceFailed, format!("tls_ca {path:?} on this node: {error}"))
}

fn client(roots: RootCertStore) -> Result<ClientConfig, Reason> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Reason::new(Code::SourceFailed, format!("TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
