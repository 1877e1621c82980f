//! Certificates of the lab's servers: self-signed, made on the spot by openssl(1).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use anyhow::{Context as _, Result};

use crate::host::{Host, User};

/// Makes a private key and a certificate for `mx.example.com` in one PEM file, for an owner's eyes alone; root's without
/// one.
///
/// # Errors
/// When openssl is not installed or the file cannot be made.
pub fn make(host: &Host, path: &str, owner: Option<&User>) -> Result<()> {
    let place = host.path(path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making the directory of {path}"))?;
    }
    let new = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 30 -subj /CN=mx.example.com \
               -addext subjectAltName=DNS:mx.example.com -keyout /tmp/key.pem -out /tmp/certificate.pem";
    host.ask("openssl", &new.split_whitespace().collect::<Vec<_>>())?;
    host.write(path, &(host.read("/tmp/key.pem")? + &host.read("/tmp/certificate.pem")?))?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).with_context(|| format!("the mode of {path}"))?;
    let owner = owner.map_or(0, |owner| owner.id);
    chown(&place, Some(owner), Some(owner)).with_context(|| format!("the owner of {path}"))
}
