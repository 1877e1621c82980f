//! Handshakes in the words of mail logs: OpenSSL's names of ciphers, and why one failed.

use std::io;

use rustls::{
    AlertDescription, CipherSuite, Error, InvalidMessage, NamedGroup, PeerIncompatible, ProtocolVersion,
    ServerConnection,
};

use crate::session::TlsSession;

/// What a client and we have agreed on.
pub fn agreed(connection: &ServerConnection) -> TlsSession {
    let protocol = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        // There are no others in the configuration.
        _ => "unknown",
    };
    let (cipher, bits) = connection.negotiated_cipher_suite().map_or(("unknown", 0), |suite| cipher(suite.suite()));
    let key_exchange = connection.negotiated_key_exchange_group().and_then(|group| match group.name() {
        NamedGroup::X25519 => Some("X25519"),
        NamedGroup::secp256r1 => Some("ECDHE (prime256v1)"),
        NamedGroup::secp384r1 => Some("ECDHE (secp384r1)"),
        _ => None,
    });
    TlsSession { protocol, cipher, bits, key_exchange }
}

/// OpenSSL's name for a cipher suite, and the bits of its key: those that rustls has with ring.
fn cipher(suite: CipherSuite) -> (&'static str, u16) {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", 256),
        CipherSuite::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", 128),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-ECDSA-AES256-GCM-SHA384", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-ECDSA-AES128-GCM-SHA256", 128),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-ECDSA-CHACHA20-POLY1305", 256),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-RSA-AES256-GCM-SHA384", 256),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-RSA-AES128-GCM-SHA256", 128),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-RSA-CHACHA20-POLY1305", 256),
        _ => ("unknown", 0),
    }
}

/// Why a handshake failed, in a few words.
pub fn why_failed(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (tls, error.kind()) {
        (Some(error), _) => why(error),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "lost connection".to_owned()
        }
        (None, _) => error.to_string(),
    }
}

fn why(error: &Error) -> String {
    use PeerIncompatible::{
        NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon, SignatureAlgorithmsExtensionRequired,
        SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled,
    };
    match error {
        // Mostly a sender that does not trust the certificate.
        Error::AlertReceived(alert) => {
            format!("alert from the client: {} (SSL alert number {})", name(*alert), u8::from(*alert))
        }
        // Who is older than TLS 1.2 does not know that extension, and it is what is missed first.
        Error::PeerIncompatible(
            SignatureAlgorithmsExtensionRequired
            | SupportedVersionsExtensionRequired
            | Tls12NotOffered
            | Tls12NotOfferedOrEnabled,
        ) => "unsupported protocol: it speaks neither TLSv1.2 nor TLSv1.3".to_owned(),
        Error::PeerIncompatible(NoCipherSuitesInCommon) => "no shared cipher".to_owned(),
        Error::PeerIncompatible(NoKxGroupsInCommon) => "no shared group for the key exchange".to_owned(),
        Error::PeerIncompatible(NoSignatureSchemesInCommon) => "no suitable signature algorithm".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "what it sent is no TLS".to_owned()
        }
        other => other.to_string(),
    }
}

/// `UnknownCA` as `unknown ca`.
fn name(alert: AlertDescription) -> String {
    let mut words = String::new();
    let mut before_is_lower = false;
    for letter in format!("{alert:?}").chars() {
        if letter.is_ascii_uppercase() && before_is_lower {
            words.push(' ');
        }
        before_is_lower = letter.is_ascii_lowercase();
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    #[test]
    fn every_cipher_has_openssls_name() {
        for suite in ring::ALL_CIPHER_SUITES {
            assert_ne!(cipher(suite.suite()), ("unknown", 0), "{suite:?}");
        }
    }

    #[test]
    fn an_alert_is_told_in_words() {
        let error = io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(why_failed(&error), "alert from the client: unknown ca (SSL alert number 48)");
        assert_eq!(name(AlertDescription::BadRecordMac), "bad record mac");
        assert_eq!(why_failed(&io::ErrorKind::UnexpectedEof.into()), "lost connection");
    }
}
