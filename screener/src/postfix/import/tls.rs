//! The certificate with which postscreen speaks TLS: `[tls]`.

use std::path::Path;

use super::super::lines::words;
use super::Import;
use super::draft::{Setting, quoted};
use super::values;

impl Import<'_> {
    pub(super) fn tls(&mut self) {
        let level = self.value("postscreen_tls_security_level").unwrap_or_default();
        let old = |import: &mut Self, name: &str| {
            import.value(name).and_then(|word| values::switch(&word).ok()).unwrap_or(false)
        };
        let forced = old(self, "postscreen_enforce_tls");
        let on = match level.as_str() {
            "" => forced || old(self, "postscreen_use_tls"),
            other => other != "none",
        };
        if !on {
            return;
        }
        if forced || !["", "may", "none"].contains(&level.as_str()) {
            self.note(
                "TLS is not demanded before the MTA has the session; it demands TLS by itself (smtpd_tls_security_level)",
            );
        }
        let newest = |import: &mut Self, what: &str| {
            let own = format!("postscreen_tls_{what}");
            import.see(&own);
            let name = if import.parameters.is_set(&own) { own } else { format!("tlsproxy_tls_{what}") };
            import.value(&name).unwrap_or_default()
        };
        let chains = newest(self, "chain_files");
        let chains = words(&chains);
        let (certificate, key, from) = match chains.as_slice() {
            [] => {
                let (rsa, ec) = (newest(self, "cert_file"), newest(self, "eccert_file"));
                let what = if rsa.is_empty() { "ec" } else { "" };
                let key = newest(self, &format!("{what}key_file"));
                if !rsa.is_empty() && !ec.is_empty() && ec != "none" {
                    self.leave("smtpd_tls_eccert_file", "there is one certificate here: see [tls]");
                }
                (
                    if rsa.is_empty() { ec } else { rsa },
                    key,
                    format!("smtpd_tls_{what}cert_file, smtpd_tls_{what}key_file"),
                )
            }
            [first, more @ ..] => {
                if !more.is_empty() {
                    self.leave(
                        "smtpd_tls_chain_files",
                        "there is one certificate here, and the first was taken: see [tls]",
                    );
                }
                ((*first).to_owned(), (*first).to_owned(), "smtpd_tls_chain_files".to_owned())
            }
        };
        if certificate.is_empty() || certificate == "none" {
            return self.leave(
                "postscreen_tls_security_level",
                "there is no certificate: STARTTLS leads to the MTA, and what comes behind it is not tested (docs/tls.md)",
            );
        }
        if let Err(why) = (self.host.certificate)(Path::new(&certificate), Path::new(&key)) {
            let why = format!(
                "{why}; without it STARTTLS leads to the MTA, and what comes behind it is not tested: set [tls]"
            );
            return self.leave(&from, why);
        }
        let setting = |key, value: &str| Setting { table: "tls", key, value: quoted(value), from: from.clone() };
        self.take(&from, vec![setting("certificate", &certificate), setting("key", &key)]);
    }
}
