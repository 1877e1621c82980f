//! A certificate with its key, read from its two files and judged.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use crate::clock::UnixTime;
use crate::config;

/// No chain and no key is longer: a file that is more is something else.
const LONGEST_FILE: u64 = 1 << 20;
/// A certificate that is this close to its end should have been renewed, however long it is good for…
const RENEW_DAYS: u64 = 14;
/// …and one that is good for a few days only, when less than this part of its time is left.
const RENEW_PART: u64 = 4;
const DAY: u64 = 86_400;

/// What this host shows in a handshake.
#[derive(Debug)]
pub struct Identity {
    /// For [`tokio_rustls::TlsAcceptor`].
    pub config: Arc<ServerConfig>,
    /// The names that it is good for: DNS names and addresses of the extension, or else the common name.
    pub names: Vec<String>,
    /// Who has signed it.
    pub issuer: String,
    /// From when on it is good.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
}

impl Identity {
    /// Reads both files and judges what they hold. Whether the certificate has expired is left to the caller.
    ///
    /// # Errors
    /// When a file cannot be read, holds something else, or the two do not belong together.
    pub fn load(files: &config::Tls) -> Result<Self, TlsError> {
        let chain = chain(&files.certificate)?;
        let key = key(&files.key)?;
        let own = chain.first().ok_or_else(|| TlsError::NoCertificate { path: files.certificate.clone() })?;
        let bad = |why: String| TlsError::BadCertificate { path: files.certificate.clone(), why };
        let (_, seen) = X509Certificate::from_der(own).map_err(|error| bad(error.to_string()))?;
        let time = |time: x509_parser::time::ASN1Time| UnixTime(time.timestamp().try_into().unwrap_or_default());
        let names = names(&seen);
        let issuer = common_name(seen.issuer()).unwrap_or_else(|| seen.issuer().to_string());
        let (not_before, not_after) = (time(seen.validity().not_before), time(seen.validity().not_after));
        let config = server_config(chain.clone(), key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            rustls::Error::InvalidCertificate(why) => bad(format!("{why:?}")),
            other => TlsError::BadKey { path: files.key.clone(), why: other.to_string() },
        })?;
        Ok(Self { config: Arc::new(config), names, issuer, not_before, not_after })
    }

    /// Whether it is good for a host name; a `*` stands for one label.
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => name.eq_ignore_ascii_case(host),
        })
    }

    /// How long it is still good, in days, rounded down; `None`: it has expired.
    pub fn days_left(&self, now: UnixTime) -> Option<u64> {
        self.not_after.0.checked_sub(now.0).map(|seconds| seconds / DAY)
    }

    /// What an operator should know about its time, if anything.
    pub fn time_warning(&self, now: UnixTime) -> Option<String> {
        let Some(days) = self.days_left(now) else {
            return Some(format!(
                "the certificate expired on {}: senders that check it defer their mail",
                self.not_after
            ));
        };
        if now < self.not_before {
            return Some(format!(
                "the certificate is not good before {}: is this host's clock right?",
                self.not_before
            ));
        }
        let whole = self.not_after.since(self.not_before);
        let soon = Duration::from_secs(RENEW_DAYS * DAY).min(whole / RENEW_PART as u32);
        (self.not_after.since(now) < soon)
            .then(|| format!("the certificate expires on {}, in {days} days, and has not been renewed", self.not_after))
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // A sender with several mails comes back within minutes: tickets cost no memory here, unlike a session cache.
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    chain.map_err(|error| malformed(path, &error))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    let marks = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if marks.iter().any(|mark| text.windows(mark.len()).any(|part| part == *mark)) {
        return Err(TlsError::Encrypted { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        error => malformed(path, &error),
    })
}

fn malformed(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), why: error.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mut text = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(TlsError::Malformed { path: path.to_owned(), why: format!("longer than {LONGEST_FILE} bytes") });
    }
    Ok(text)
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let names: Vec<String> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => match octets.len() {
                4 => <[u8; 4]>::try_from(*octets).ok().map(|octets| std::net::IpAddr::from(octets).to_string()),
                _ => <[u8; 16]>::try_from(*octets).ok().map(|octets| std::net::IpAddr::from(octets).to_string()),
            },
            _ => None,
        })
        .collect();
    if names.is_empty() { common_name(certificate.subject()).into_iter().collect() } else { names }
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> Option<String> {
    name.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned)
}
