//! Certificates made for a test, each its own issuer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::host::{Host, User};

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    name: String,
    chain: String,
    der: CertificateDer<'static>,
    key: String,
}

impl Certificate {
    /// One for a host, with a key on P-256, good for 90 days.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(name: &str) -> Result<Self> {
        Self::good_for(name, 90)
    }

    /// One that is good for so many days from now on; less than none: it has expired.
    ///
    /// # Errors
    /// When the name is none.
    pub fn good_for(name: &str, days: i64) -> Result<Self> {
        let pair = KeyPair::generate().context("a key")?;
        let mut params = CertificateParams::new([name.to_owned()]).context("a certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(90);
        params.not_after = now + Duration::days(days) + Duration::hours(1);
        let made = params.self_signed(&pair).context("a certificate")?;
        Ok(Self { name: name.to_owned(), chain: made.pem(), der: made.der().clone(), key: pair.serialize_pem() })
    }

    /// What it is good for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// The private key, PEM.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// Puts both into a directory of a host, as `cert.pem` and `key.pem`: each at once, the certificate first.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn install(&self, host: &Host, directory: &str) -> Result<()> {
        replace(host, &format!("{directory}/cert.pem"), &self.chain)?;
        replace(host, &format!("{directory}/key.pem"), &self.key)
    }

    /// Makes both one file, key first, for the eyes of its owner alone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn install_as(&self, host: &Host, path: &str, owner: &User) -> Result<()> {
        host.write(path, &format!("{}{}", self.key, self.chain))?;
        let place = host.path(path);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("the mode of {path}"))?;
        chown(&place, Some(owner.id), Some(owner.id)).with_context(|| format!("the owner of {path}"))
    }
}

/// Puts a file into the place of another at once.
///
/// # Errors
/// When it cannot be written.
pub fn replace(host: &Host, path: &str, text: &str) -> Result<()> {
    let new = format!("{path}.new");
    host.write(&new, text)?;
    fs::rename(host.path(&new), host.path(path)).with_context(|| format!("replacing {path}"))
}
