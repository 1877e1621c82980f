//! What can be wrong with a certificate or its key, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::clock::UnixTime;

/// Why a certificate cannot be used. Each says which file, and what to do.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}{}", advice(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The failed call's error.
        source: io::Error,
    },
    /// It holds something else than PEM.
    #[error("{path} is no PEM file: {why}: write it anew, e.g. with `openssl x509` or `openssl pkey`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no certificate in it.
    #[error(
        "{path} holds no certificate (-----BEGIN CERTIFICATE-----): tls.certificate names the chain in PEM, this host's own first"
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in it.
    #[error("{path} holds no private key (-----BEGIN PRIVATE KEY-----): tls.key names the key in PEM")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key has a passphrase.
    #[error(
        "the key in {path} has a passphrase, which nobody could enter when the daemon starts: write it without one \
         (`openssl pkey -in {path} -out NEW`), and let only the daemon read it"
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate cannot be understood.
    #[error("the first certificate in {path} cannot be understood: {why}: get it from your CA again")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is of a kind that cannot be used.
    #[error(
        "the key in {path} cannot be used: {why}: use RSA with 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519"
    )]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// They do not belong together.
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}: name the pair that was made together; \
         this host's own certificate stands first in the chain, its issuer's behind it"
    )]
    Mismatch {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// It is no improvement on the one that stands.
    #[error("the certificate in {path} expired on {since}, the one in use is still good: put a renewed one there")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        since: UnixTime,
    },
}

/// What helps where the system refuses.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            format!(
                " (by user {user}): let the daemon's user read the file and enter the directories above it, e.g. with chgrp \
                 and chmod, or with setfacl"
            )
        }
        io::ErrorKind::NotFound => ": correct the path in [tls], or put the file there".to_owned(),
        _ => String::new(),
    }
}
